"""The page of one queue and the dead letters of all queues in a real browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import Select

from jobs import broker, control, message
from jobs.broker.base import About, Note, Outgoing, Revocation
from jobs.message import Message
from tests.browser.pages import see, text
from tests.integration.admin.conftest import bury, letter
from tests.services import wait_for

Visit = Callable[[str], None]

QUEUE = "jobs/queues/queue/default/"


@pytest.fixture
def visit(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Visit:
    """Signs a superuser in, and gives a function that opens a page of the admin."""
    sign_in()
    return lambda path: browser.get(f"{live_server.url}/admin/{path}")


@pytest.fixture
def dark(browser: Chrome) -> Iterator[Callable[[str], None]]:
    """``dark("name")`` takes the page in dark colours, where SCREENSHOTS names a folder."""

    def picture(name: str) -> None:
        wanted = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
        browser.refresh()  # or the colours would still be fading
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder, f"{name}-dark.png").write_bytes(browser.get_screenshot_as_png())
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    yield picture
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture
def filled(broker_url: str) -> dict[str, list[str]]:
    """Ids of the calls of a queue: some that wait, run, and are due later."""

    def send(count: int, task: str, due: float | None = None) -> list[str]:
        sent = [
            Message(task=task, id=message.new_id(), queue="default", args=[n], held=bool(due))
            for n in range(count)
        ]
        raws = map(message.encode, sent)
        broker.get().push([Outgoing("default", raw, 0, due) for raw in raws])
        return [one.id for one in sent]

    runs = send(3, "shop.tasks.build_report")
    broker.get().claim("default", "web-1/4711.a", 1, 3, 600.0)
    now = time.time()
    said = [["default", "web-1/4711.a", n, now - 300 * n] for n in (1, 2)]
    report = {
        "host": "web-1",
        "pid": 4711,
        "started": now - 3600,
        "queues": ["default"],
        "processes": 1,
        "processed": 3,
        "consumers": ["web-1/4711.a"],
        "running": said,
    }
    broker.get().report("default", "web-1", json.dumps(report).encode())
    done = {"done": 30, "total": 80, "message": "pages", "at": now}
    broker.get().note("default", [Note(runs[0], About.PROGRESS, json.dumps(done).encode())], 60)
    control.rate_limit("tests.tasks.trace", "7/m")
    return {
        "runs": runs,
        "waits": send(60, "shop.tasks.send_receipt"),
        "due": send(3, "shop.tasks.remind", now + 3600),
    }


def click(browser: Chrome, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def test_the_lists_of_a_queue(
    browser: Chrome,
    visit: Visit,
    filled: dict[str, list[str]],
    screenshot: Callable[[str], None],
    dark: Callable[[str], None],
) -> None:
    visit("jobs/queues/")
    browser.find_element("link text", "default").click()
    see(browser, "#jobs-lists [aria-current]", "60")
    see(browser, "#jobs-calls tbody tr:first-child", filled["waits"][0])
    screenshot("queue-waiting")
    dark("queue-waiting")
    click(browser, ".jobs-pages [rel=next]")
    see(browser, "#jobs-calls tbody tr:last-child", filled["waits"][-1])
    for name, label, words in (
        ("running", "Running", "30 of 80"),
        ("in-flight", "In flight", "not started"),
        ("due", "Due later", "in 59 min"),
    ):
        browser.find_element("partial link text", label).click()
        see(browser, "#jobs-lists [aria-current]", label)
        see(browser, "#jobs-calls", words)
        screenshot(f"queue-{name}")
        dark(f"queue-{name}")


def test_calls_are_acted_on(
    browser: Chrome,
    visit: Visit,
    filled: dict[str, list[str]],
    screenshot: Callable[[str], None],
) -> None:
    visit(f"{QUEUE}?tab=running")
    click(browser, "#jobs-calls tbody tr:first-child input")
    click(browser, "button[value=terminate]")
    see(browser, "#content", "1 call will be ended as REVOKED")
    screenshot("queue-terminate")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "1 call is terminated.")
    longest = filled["runs"][1]
    assert broker.get().revoked("default", [longest]) == [Revocation.TERMINATE]
    visit(QUEUE)
    click(browser, "#jobs-all")
    click(browser, "button[value=move]")
    see(browser, "#content", "50 calls will be moved from queue “default”")
    Select(browser.find_element("id", "jobs-to")).select_by_value("high")
    screenshot("queue-move")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "50 calls are moved.")
    assert broker.get().stats("high").waiting == 50
    visit(f"{QUEUE}?tab=due")
    click(browser, "button[value=run_all_now]")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "3 calls are run now.")


def test_a_queue_is_purged_by_its_name(
    browser: Chrome,
    visit: Visit,
    filled: dict[str, list[str]],
    screenshot: Callable[[str], None],
) -> None:
    visit(QUEUE)
    browser.find_element("link text", "Purge…").click()
    browser.find_element("id", "jobs-name").send_keys("high")
    screenshot("purge")
    click(browser, "button.jobs-destroy")
    see(browser, ".messagelist", "Nothing was deleted")
    browser.find_element("id", "jobs-name").send_keys("default")
    click(browser, "button.jobs-destroy")
    see(browser, ".messagelist", "60 messages deleted")


def test_a_call_is_found_and_revoked(
    browser: Chrome,
    visit: Visit,
    filled: dict[str, list[str]],
    screenshot: Callable[[str], None],
    dark: Callable[[str], None],
) -> None:
    task_id = filled["runs"][0]
    visit("jobs/taskresult/")
    browser.find_element("id", "searchbar").send_keys(task_id, "\n")
    wait_for(lambda: f"/call/default/{task_id}/" in browser.current_url)
    see(browser, ".jobs-facts", "30 of 80")
    screenshot("call")
    dark("call")
    click(browser, "button[value=revoke]")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "1 call is revoked.")


def test_the_dead_letters_of_all_queues(
    browser: Chrome,
    visit: Visit,
    broker_url: str,
    screenshot: Callable[[str], None],
    dark: Callable[[str], None],
) -> None:
    for n in range(4):
        letter(queue=("default", "low")[n % 2], args=[n])
    bury(b"garbage", queue="high", reason="MalformedMessage: not a message in Celery's format")
    visit("")
    click(browser, "#content .model-deadletters th a")
    see(browser, "#jobs-groups", "shop.tasks.gone")
    screenshot("dead-letters-all")
    dark("dead-letters-all")
    browser.find_element("link text", "UnknownTask").click()
    wait_for(lambda: text(browser, "#jobs-letters tbody").count("shop.tasks.gone") == 4)
    click(browser, "button[value=requeue_all]")
    see(browser, "#content", "4 messages go back on their queues")
    see(browser, "#content", "Reason: UnknownTask. Task: shop.tasks.gone.")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "4 messages are back")
    assert [broker.get().stats(queue).waiting for queue in ("default", "low")] == [2, 2]
