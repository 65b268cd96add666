"""The page of one result in a real browser, while its call waits, runs, fails and is run again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from jobs import chain, chord, control
from jobs.models import TaskResult
from jobs.states import State
from tests.browser.pages import see, text
from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, echo, fail, wait_at
from tests.workers import work

Open = Callable[[str], None]

STATE = ".field-in_words"


@pytest.fixture
def open_page(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Open:
    """Signs a superuser in, and gives a function that opens the page of a result."""
    sign_in()
    return lambda pk: browser.get(f"{live_server.url}/admin/jobs/taskresult/{pk}/change/")


def click(browser: Chrome, selector: str) -> None:
    browser.find_element("css selector", selector).click()


@pytest.fixture
def both_lights(browser: Chrome, screenshot: Callable[[str], None]) -> Callable[[str], None]:
    """Takes a page in light and in dark."""

    def take(name: str) -> None:
        for light in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": light}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            screenshot(f"{name}-{light}")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    return take


def test_the_page_follows_the_call_to_its_end(
    browser: Chrome,
    open_page: Open,
    project: Project,
    tmp_path: Path,
    both_lights: Callable[[str], None],
) -> None:
    with transaction.atomic():
        sent = wait_at.delay(str(tmp_path))
    open_page(sent.id)
    see(browser, STATE, "waiting for a worker")
    project.manage("runworker", "--processes", "1")
    # Nobody touches the page: it asks by itself.
    see(browser, STATE, "Runs on")
    wait_for(lambda: text(browser, ".field-worker .readonly") not in ("", "-"))
    assert browser.find_elements("id", "jobs-revoke")
    both_lights("result-running")
    Path(tmp_path, "open").touch()
    see(browser, STATE, "Succeeded in")
    assert not browser.find_elements("id", "jobs-live")
    see(browser, ".field-timeline", "Finished")


def test_why_it_failed_and_how_it_is_run_with_other_arguments(
    browser: Chrome, open_page: Open, broker_url: str, both_lights: Callable[[str], None]
) -> None:
    sent = add.delay(1, "two")
    work()
    assert control.retry(sent.id, by="ada")
    work()
    open_page(sent.id)
    see(browser, STATE, "Run again by ada")
    see(browser, ".field-timeline", "Attempt 2 started")
    assert "return a + b" in text(browser, ".field-traceback_text .jobs-own")
    assert "1 frame of a library" in text(browser, ".field-traceback_text")
    both_lights("result-failed")
    click(browser, "#jobs-edit")
    field = browser.find_element("id", "id_args")
    both_lights("result-edit")
    field.clear()
    field.send_keys("[1]")
    click(browser, "button[name=confirmed]")
    see(browser, ".errorlist", "missing a required argument")
    field = browser.find_element("id", "id_args")
    field.clear()
    field.send_keys("[1, 2]")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "A new call with these arguments is sent.")
    work()
    new = TaskResult.objects.exclude(pk=sent.id).get()
    assert (new.state, new.result) == (State.SUCCESS, "3")
    open_page(new.pk)
    see(browser, ".field-sender_text", sent.id)


def test_the_workflow_is_drawn_and_each_call_is_a_link(
    browser: Chrome, open_page: Open, broker_url: str, both_lights: Callable[[str], None]
) -> None:
    body = chord([chain(add.s(1, n), add.s(1)) for n in range(3)] + [fail.s("wrong")], echo.s())
    body.delay()
    work()
    failing = TaskResult.objects.get(task=fail.name)
    open_page(failing.pk)
    wait_for(lambda: browser.find_elements("css selector", ".jobs-graph .jobs-node"))
    both_lights("result-workflow")
    click(browser, ".jobs-graph a:last-of-type")
    wait_for(lambda: f"/{failing.pk}/" not in browser.current_url)
    see(browser, ".field-error_text", "Because of:")
    click(browser, ".field-error_text .jobs-relations a")
    wait_for(lambda: f"/{failing.pk}/" in browser.current_url)
