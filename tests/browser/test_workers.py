"""The admin's pages of workers and tasks in a real browser, with real workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from jobs import control
from jobs.control import inspect
from jobs.models import TaskResult
from tests.browser.pages import see
from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, fail, wait_at
from tests.workers import Gate, kill_one_child, ready_worker

JOBS = {"LEASE_SECONDS": 3.0, "POLL_SECONDS": 0.2, "REVISION": "4f2a91c"}

Visit = Callable[[str], None]


@pytest.fixture
def visit(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Visit:
    sign_in()
    return lambda path: browser.get(f"{live_server.url}/admin/jobs/{path}")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def click(browser: Chrome, selector: str) -> None:
    browser.find_element("css selector", selector).click()


@pytest.fixture
def both(browser: Chrome, screenshot: Callable[[str], None]) -> Callable[[str], None]:
    """Takes pictures in light and dark, at a desktop's and a telephone's width. On the telephone
    nothing may stand beside the page."""

    def both(name: str) -> None:
        for theme in ("light", "dark"):
            script = "document.documentElement.dataset.theme = arguments[0]"
            browser.execute_script(script, theme)
            screenshot(f"{name}-{theme}")
        size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert wide <= 390

    return both


def test_workers(
    browser: Chrome, visit: Visit, project: Project, gate: Gate, both: Callable[[str], None]
) -> None:
    options = ("--processes", "2", "--queues", "high,default")
    worker = ready_worker(project, *options, "--name", "mail-1", jobs=JOBS)
    new = {**JOBS, "REVISION": "b71e003"}
    other = ready_worker(
        project, "--processes", "1", "--queues", "low", "--name", "reports-1", jobs=new
    )
    fail.delay("x").get(timeout=60, propagate=False)
    kill_one_child(worker)
    running = [wait_at.delay(gate.path) for _ in range(2)]
    gate.wait_for(2)
    visit("workers/")
    see(browser, "#jobs-workers-table", "2 of 2")
    see(browser, "#jobs-workers-table", wait_at.name)
    see(browser, "#jobs-live", "The workers run different code: 4f2a91c · 0.1.0, b71e003 · 0.1.0.")
    see(browser, "#jobs-workers-gone", "killed by SIGKILL")
    # A suspended worker falls silent, while the page looks by itself.
    other.send_signal(signal.SIGSTOP)
    see(browser, "#jobs-workers-table", "silent since")
    both("workers")
    os.kill(other.pid, signal.SIGKILL)
    # From the list to the stacks of a worker, and back to work.
    browser.find_element("link text", "mail-1").click()
    see(browser, "#jobs-worker-calls", wait_at.name)
    both("worker")
    click(browser, "#jobs-stack")
    see(browser, "#jobs-answer", "It has said what its threads are doing.")
    click(browser, "#jobs-answer a")
    see(browser, "#content-main", "in wait_at")
    both("worker-stacks")
    click(browser, "#jobs-quiet")
    see(browser, "#jobs-answer", "It does what was asked.")
    see(browser, ".jobs-facts", "quiet")
    result = add.delay(1, 2)
    gate.open()
    for one in running:
        one.get(timeout=60)
    see(browser, "#jobs-live", "It runs nothing.")
    click(browser, "#jobs-resume")
    assert result.get(timeout=60) == 3
    # To stop one is asked for, and confirmed with a reason.
    click(browser, "#jobs-stop")
    browser.find_element("id", "jobs-why").send_keys("the machine moves")
    both("worker-stop")
    click(browser, "button[name=confirmed]")
    wait_for(lambda: worker.poll() == 0)
    see(browser, "#jobs-live", "No worker of this name reports.")
    see(browser, "#jobs-workers-gone", "asked by operator")
    see(browser, "#content-main", "Reason: the machine moves")


def test_tasks(
    browser: Chrome, visit: Visit, project: Project, both: Callable[[str], None]
) -> None:
    ready_worker(project, "--processes", "1", jobs=JOBS)
    for n in range(20):
        add.delay(n, n)
    fail.delay("no such order").get(timeout=60, propagate=False)
    add.delay(1, 1).get(timeout=60)
    control.pause_task("tests.tasks.trace", by="ada", why="it floods the mail server")
    wait_for(lambda: TaskResult.objects.filter(task=fail.name).exists())
    visit("tasks/?q=tests.tasks.")
    row = f"//tr[.//a[text()='{fail.name}']]"
    wait_for(
        lambda: browser.refresh() or "0 %" in browser.find_element("xpath", row).text,
        what="the numbers of the failed task",
    )
    both("tasks")
    browser.find_element("link text", add.name).click()
    see(browser, "#content-main", "Half of them took at most")
    both("task")
    click(browser, "#jobs-run")
    browser.find_element("name", "arg-a").send_keys("3")
    click(browser, "#jobs-run-form button[type=submit]")
    see(browser, "#jobs-run-form", "This field is required.")
    both("task-run")
    browser.find_element("name", "arg-b").send_keys("4")
    before = TaskResult.objects.filter(task=add.name).count()
    click(browser, "#jobs-run-form button[type=submit]")
    see(browser, ".messagelist", "Sent as")
    wait_for(lambda: TaskResult.objects.filter(task=add.name).count() == before + 1)
    assert TaskResult.objects.filter(task=add.name).latest("id").result == "7"
    browser.find_element("id", "jobs-new-rate").send_keys("10/m")
    click(browser, "#jobs-rate input[type=submit]")
    see(browser, ".messagelist", "has the rate 10/m.")
    see(browser, "#content-main", "10/m, set by operator")
    assert [str(found) for found in control.rate_limits().values()] == ["10/m"]
    assert inspect.waiting("default") == []
