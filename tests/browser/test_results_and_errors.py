"""The list of results with its filters and acts, and the page of errors, in a real browser."""

from __future__ import annotations

import datetime as dt
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import Select

from jobs import broker
from jobs.admin.results import many
from jobs.models import KnownError, TaskResult
from tests.browser.pages import see, text
from tests.integration.admin.conftest import row
from tests.integration.admin.test_all_that_match import TASK, failures
from tests.integration.admin.test_results import made_at
from tests.services import wait_for

Visit = Callable[[str], None]

LIST = "jobs/taskresult/"


@pytest.fixture
def visit(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Visit:
    """Signs a superuser in, and gives a function that opens a page of the admin."""
    sign_in()
    return lambda path: browser.get(f"{live_server.url}/admin/{path}")


def click(browser: Chrome, selector: str) -> None:
    browser.find_element("css selector", selector).click()


@pytest.fixture
def shots(browser: Chrome, screenshot: Callable[[str], None]) -> Callable[[str], None]:
    """Pictures of the page in light and dark, each for a desktop and a telephone."""

    def shots(name: str) -> None:
        if not os.environ.get("SCREENSHOTS"):
            return
        for theme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": theme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            screenshot(f"{name}-{theme}")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    return shots


def check_that_it_fits(browser: Chrome, width: int) -> None:
    """Nothing of the page is wider than the window."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth,"
        " document.querySelector('#result_list, .jobs-errors')?.parentElement.scrollWidth,"
        " document.querySelector('#result_list, .jobs-errors')?.parentElement.clientWidth]"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide[0] <= wide[1], wide
    assert wide[2] <= wide[3], wide


def some_rows() -> None:
    now = timezone.now()
    for n in range(12):
        at = now - dt.timedelta(minutes=n * n)
        made = {"id": made_at(at), "created_at": at, "started_at": at, "finished_at": at}
        kind = ("ValueError", "KeyError", "shop.payment.errors.CardDeclined")[n % 3]
        name = kind if "." in kind else f"builtins.{kind}"
        error = {"error_type": name, "error": f"Order {n} of customer 17 can’t be charged"}
        row(
            task="shop.payment.tasks.charge_the_card_of_a_customer",
            state="FAILURE",
            worker="worker-1234@machine-7.example/2.1-0123456789abcdef",
            **made,
            **error,
        )
    row(
        task="warehouse.exports.tasks.summarise_the_upload",
        args=json.dumps([str(uuid.uuid4())] * 3),
        label="import 2026-11",
        worker="worker-4711@web-1.example.com",
    )
    row(state="REVOKED", error="revoked", task="shop.tasks.remind")
    row(state="STARTED", finished_at=None)


def test_filters_that_are_typed(
    browser: Chrome, visit: Visit, broker_url: str, shots: Callable[[str], None]
) -> None:
    some_rows()
    visit(LIST)
    see(browser, "#jobs-count", "15 results")
    shots("results")
    check_that_it_fits(browser, 1280)
    check_that_it_fits(browser, 390)
    browser.find_element("link text", "failed").click()
    see(browser, "#jobs-count", "12 results")
    browser.find_element("id", "jobs-by-error_type").send_keys("CardDeclined")
    since = timezone.localtime() - dt.timedelta(minutes=200)
    browser.execute_script(
        "document.getElementById('jobs-by-since').value = arguments[0]",
        since.strftime("%Y-%m-%dT%H:%M"),
    )
    click(browser, ".jobs-typed button")
    see(browser, "#jobs-count", "4 results")
    assert "state__exact=FAILURE" in browser.current_url
    shots("results-filtered")


def test_all_that_match_with_a_bar_and_a_stop(
    browser: Chrome,
    visit: Visit,
    broker_url: str,
    shots: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(many, "AT_ONCE", 40)
    failures(60)
    visit(LIST + "?state__exact=FAILURE")
    click(browser, "#action-toggle")
    click(browser, ".actions .question a")
    see(browser, ".actions .all", "All that match: 60 results")
    shots("results-all-chosen")
    Select(browser.find_element("name", "action")).select_by_value("run_again")
    click(browser, ".actions button[name=index]")
    see(browser, "#content", "The results that match now: 60.")
    shots("results-all-question")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "a task has begun")
    click(browser, ".messagelist a")
    call = TaskResult.objects.get(task=TASK)
    wait_for(lambda: call.pk in browser.current_url)
    click(browser, "#jobs-revoke")
    click(browser, "button[name=confirmed]")
    wait_for(lambda: any(broker.get().revoked("default", [call.pk])))


def test_errors(
    browser: Chrome, visit: Visit, broker_url: str, shots: Callable[[str], None]
) -> None:
    some_rows()
    KnownError.objects.create(
        task="shop.payment.tasks.charge_the_card_of_a_customer",
        error_type="builtins.KeyError",
        marked_by="ada",
        why="the bank’s list of countries is old",
    )
    visit("jobs/errors/")
    see(browser, "#content", "CardDeclined")
    assert "KeyError" not in text(browser, "#content")
    click(browser, ".jobs-known summary")
    see(browser, ".jobs-known", "the bank’s list of countries")
    shots("errors")
    check_that_it_fits(browser, 1280)
    check_that_it_fits(browser, 390)
    click(browser, ".jobs-errors form[action*=mark] button")
    browser.find_element("id", "jobs-why").send_keys("closed until Monday")
    shots("errors-mark")
    click(browser, "button[name=confirmed]")
    see(browser, ".messagelist", "marked as known")
    assert KnownError.objects.filter(why="closed until Monday").exists()
    folder = os.environ.get("SCREENSHOTS")
    assert not folder or Path(folder, "errors-dark-390.png").exists()


def test_what_is_due_next_and_what_a_label_finds(
    browser: Chrome, visit: Visit, screenshot: Callable[[str], None]
) -> None:
    now = timezone.now()
    for minutes in (30, 5):
        row(
            state="RETRY",
            finished_at=None,
            eta=now + dt.timedelta(minutes=minutes, seconds=30),
            error_type="builtins.TimeoutError",
            error=f"attempt before {minutes}",
            label="import 2026-11",
        )
    row(label="import 2026-10")
    visit(LIST)
    browser.find_element("partial link text", "Due later, the next first").click()
    see(browser, "#result_list", "import 2026-11")
    lines = text(browser, "#result_list").splitlines()
    order = [line for line in lines if "attempt before" in line]
    assert ["attempt before 5" in order[0], "attempt before 30" in order[1]] == [True, True]
    for width in (1280, 390):
        check_that_it_fits(browser, width)
    screenshot("due-next")
    visit(LIST)
    browser.find_element("id", "jobs-by-label").send_keys("import 2026-10")
    click(browser, ".jobs-typed button")
    see(browser, "#jobs-count", "1 result")
    click(browser, "#result_list .field-task_and_id a")
    see(browser, ".field-label_text", "import 2026-10")
    browser.find_element("link text", "all results with this label").click()
    see(browser, "#jobs-count", "1 result")
