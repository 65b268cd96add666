"""The admin's pages of results and queues in a real browser."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from jobs import broker, message
from jobs.admin.queues import admin as queues
from jobs.broker.base import Outgoing, Revocation
from jobs.message import Message
from jobs.models import TaskAttempt
from tests.browser.pages import fits, see, text
from tests.integration.admin.conftest import letter, row
from tests.services import Valkey, wait_for

WAITING = "#jobs-live-queues tbody tr:nth-child(2) td:nth-of-type(1)"

Visit = Callable[[str], None]


@pytest.fixture
def visit(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Visit:
    """Signs a superuser in, and gives a function that opens a page of the admin."""
    sign_in()
    return lambda path: browser.get(f"{live_server.url}/admin/{path}")


def click(browser: Chrome, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def test_from_the_sign_in_to_a_result(
    browser: Chrome, live_server: LiveServer, broker_url: str, screenshot: Callable[[str], None]
) -> None:
    User.objects.create_superuser("ada", password="lovelace")
    row(task="shop.tasks.other")
    failed = row(
        state="FAILURE",
        error_type="builtins.ValueError",
        error="no such order",
        traceback="Traceback (most recent call last):\n  …",
    )
    browser.get(f"{live_server.url}/admin/")
    browser.find_element("id", "id_username").send_keys("ada")
    browser.find_element("id", "id_password").send_keys("lovelace")
    click(browser, "input[type=submit]")
    click(browser, "#content .model-taskresult th a")
    wait_for(lambda: text(browser, "#result_list").count("shop.tasks") == 2)
    screenshot("results")
    browser.find_element("link text", "failed").click()
    wait_for(lambda: text(browser, "#result_list").count("shop.tasks") == 1)
    click(browser, "#result_list .field-task_and_id a")
    wait_for(lambda: f"/{failed.pk}/change/" in browser.current_url)
    see(browser, ".jobs-sentence", "no such order")
    see(browser, ".field-traceback_text", "Traceback")
    screenshot("result")


def test_the_queues_update_by_themselves(
    browser: Chrome, visit: Visit, broker_url: str, screenshot: Callable[[str], None]
) -> None:
    visit("")
    click(browser, "#content .model-queues th a")
    wait_for(lambda: text(browser, WAITING) == "0")
    browser.execute_script("document.querySelector('#jobs-live-queues td a').focus()")
    broker.get().push([Outgoing("default", b"x"), Outgoing("default", b"y")])
    wait_for(lambda: text(browser, WAITING) == "2", what="the page to show 2 waiting messages")
    see(browser, "#jobs-live", "no worker takes them")
    focused = browser.execute_script("return document.activeElement.getAttribute('href')")
    assert focused.endswith("/dead/high/")
    screenshot("queues")


def test_the_queues_with_redis_away_and_back(
    browser: Chrome, visit: Visit, own_valkey: Valkey, screenshot: Callable[[str], None]
) -> None:
    visit("jobs/queues/")
    own_valkey.kill()
    wait_for(lambda: "Redis can’t be asked" in text(browser, "#jobs-live"))
    assert text(browser, "#jobs-live-queues") == ""
    screenshot("queues-redis-away")
    own_valkey.start()
    wait_for(lambda: text(browser, WAITING) == "0")


def test_the_queues_when_signed_out(
    browser: Chrome, visit: Visit, broker_url: str, screenshot: Callable[[str], None]
) -> None:
    visit("jobs/queues/")
    browser.delete_cookie("sessionid")
    wait_for(lambda: "You are signed out" in text(browser, "#jobs-live-note"))
    # What was there stays, rather than a sign-in page in its place.
    wait_for(lambda: text(browser, WAITING) == "0")
    screenshot("queues-signed-out")


def test_a_hidden_page_does_not_ask(
    browser: Chrome, visit: Visit, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "REFRESH", 0.1)

    def tell(*, hidden: bool) -> None:
        browser.execute_script(
            "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'));",
            hidden,
        )

    def asked() -> int:
        return int(
            browser.execute_script(
                "return performance.getEntriesByType('resource')"
                ".filter((entry) => entry.name.endsWith('/live/')).length"
            )
        )

    visit("jobs/queues/")
    wait_for(asked)
    tell(hidden=True)
    broker.get().push([Outgoing("default", b"x")])
    before = asked()
    # The time in which a page that can be seen asks five times.
    browser.execute_async_script("setTimeout(arguments[0], 500)")
    assert asked() <= before + 1  # one may have been on its way
    tell(hidden=False)
    wait_for(lambda: text(browser, WAITING) == "1")


def test_dead_letters_are_put_back_and_discarded(
    browser: Chrome, visit: Visit, broker_url: str, screenshot: Callable[[str], None]
) -> None:
    for n in range(3):
        letter(args=[n])
    visit("jobs/deadletters/?queue=default")
    screenshot("dead-letters")
    click(browser, "#jobs-letters tbody tr:first-child input")
    click(browser, "button[value=requeue]")
    see(browser, ".messagelist", "1 message is back")
    click(browser, "#jobs-all")
    click(browser, "button[value=discard]")
    see(browser, "#content", "2 messages will be deleted")
    screenshot("discard")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "2 messages discarded")
    see(browser, "#content", "There are no dead letters")
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.dead) == (1, 0)


def test_a_failed_result_is_run_again_and_revoked(
    browser: Chrome, visit: Visit, broker_url: str, screenshot: Callable[[str], None]
) -> None:
    task_id = message.new_id()
    sent = Message(task="shop.tasks.send_receipt", id=task_id, queue="default", args=[17])
    error = {"error_type": "builtins.ValueError", "error": "no such order"}
    failed = row(id=task_id, state="FAILURE", attempts=2, message=message.encode(sent), **error)
    TaskAttempt.objects.create(
        result=failed,
        number=1,
        worker="worker-1",
        finished_at=failed.finished_at,
        traceback="Traceback (most recent call last):\n  first",
        **error,
    )
    visit(f"jobs/taskresult/{task_id}/change/")
    assert "first" not in text(browser, ".jobs-attempts")
    click(browser, ".jobs-attempts summary")
    see(browser, ".jobs-attempts", "first")
    screenshot("attempts")
    click(browser, "#jobs-again")
    see(browser, "#content", "1 task will be run again")
    screenshot("run-again")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "1 task is run again")
    see(browser, ".jobs-sentence", "In queue “default” since")
    assert broker.get().stats("default").waiting == 1
    click(browser, "#jobs-revoke")
    click(browser, "input[name=terminate]")
    screenshot("revoke")
    click(browser, "button[name=confirmed]")
    see(browser, ".jobs-sentence", "It is revoked")
    assert broker.get().revoked("default", [task_id]) == [Revocation.TERMINATE]


def test_retries_are_chosen_from_their_list(
    browser: Chrome, visit: Visit, broker_url: str, screenshot: Callable[[str], None]
) -> None:
    eta = timezone.now() + dt.timedelta(minutes=10)
    error = {"error_type": "builtins.ValueError", "error": "no such order"}
    for _ in range(2):
        task_id = message.new_id()
        raw = message.encode(Message(task="shop.tasks.send_receipt", id=task_id, queue="default"))
        broker.get().push([Outgoing("default", raw, 0, eta.timestamp())])
        row(id=task_id, state="RETRY", message=raw, eta=eta, finished_at=None, **error)
    visit("jobs/taskresult/")
    browser.find_element("link text", "waiting for a retry").click()
    # The list of all looks the same, and what is chosen there is gone with it.
    wait_for(lambda: "state__exact=RETRY" in browser.current_url)
    see(browser, "#result_list", "ValueError: no such order")
    screenshot("retries")
    click(browser, "#action-toggle")
    click(browser, "select[name=action] option[value=run_again]")
    click(browser, "#changelist button[name=index]")
    see(browser, ".messagelist", "2 tasks are run again")
    assert len(broker.get().claim("default", "w", 1, 9, 15.0).messages) == 2


def test_all_dead_letters_are_put_back(
    browser: Chrome, visit: Visit, broker_url: str, screenshot: Callable[[str], None]
) -> None:
    for n in range(3):
        letter(args=[n])
    visit("jobs/deadletters/?queue=default")
    click(browser, "button[value=requeue_all]")
    screenshot("all-back")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "3 messages are back")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_window(
    browser: Chrome, visit: Visit, broker_url: str, width: int
) -> None:
    result = row(args='["' + "long" * 200 + '"]', traceback="x" * 300, state="RETRY", attempts=2)
    values = {"worker": "w" * 99, "error_type": "a.Error", "error": "e" * 300}
    TaskAttempt.objects.create(
        result=result, number=1, finished_at=timezone.now(), traceback="x" * 300, **values
    )
    key, _sent = letter(task="a." * 60 + "task", args=["long" * 200])
    waits = message.new_id()
    sent = Message(task="a." * 60 + "task", id=waits, queue="default", args=["long" * 200])
    broker.get().push([Outgoing("default", message.encode(sent))])
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for path in (
        "jobs/taskresult/",
        "jobs/taskresult/?state__exact=RETRY",
        f"jobs/taskresult/{result.pk}/change/",
        "jobs/queues/",
        "jobs/queues/queue/default/",
        f"jobs/queues/call/default/{waits}/",
        "jobs/deadletters/?queue=default",
        f"jobs/deadletters/letter/default/{key}/",
    ):
        visit(path)
        fits(browser, width)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
