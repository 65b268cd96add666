"""What somebody on call asks at night is answered, or done, within three clicks from the front page
of the admin. Real workers run behind it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from jobs import broker, chain, control
from jobs.control import metrics
from jobs.control.metrics import Range
from jobs.models import Schedule, TaskAttempt, TaskResult
from jobs.states import State
from tests.browser.pages import see, text
from tests.integration.admin.conftest import letter, row
from tests.integration.admin.test_results import made_at
from tests.project import Process, Project
from tests.services import wait_for
from tests.tasks import add, echo, fail, fail_hourly, wait_at
from tests.workers import Gate, ready_worker

#: Most clicks that an answer may take.
CLICKS = 3

JOBS = {"LEASE_SECONDS": 3.0, "POLL_SECONDS": 0.2}


class Visit:
    """A person who begins at the front page of the admin, and counts the clicks."""

    def __init__(self, browser: Chrome, front_page: str) -> None:
        self.browser = browser
        self._front_page = front_page
        self.clicks = 0

    def begin(self) -> None:
        self.browser.get(self._front_page)
        self.clicks = 0

    def open(self, page: str) -> None:
        """Click on a page of the app: the name of its model."""
        self.click(f"#content .model-{page} th a")

    def click(self, selector: str) -> None:
        self._click("css selector", selector)

    def click_link(self, words: str) -> None:
        self._click("link text", words)

    def click_in_row(self, words: str, what: str) -> None:
        """Click on something in the row of a table that has these words."""
        self._click("xpath", f"//tr[contains(., '{words}')]//{what}")

    def _click(self, by: str, value: str) -> None:
        self.clicks += 1
        assert self.clicks <= CLICKS, f"click {self.clicks}, on {value}"
        before = self.browser.find_element("tag name", "html").id
        found = self.browser.find_element(by, value)
        box = found.get_attribute("type") == "checkbox"
        found.click()
        if not box:
            wait_for(
                lambda: self.browser.find_element("tag name", "html").id != before,
                what=f"the page behind {value}",
            )


@pytest.fixture
def visit(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Visit:
    sign_in()
    visit = Visit(browser, f"{live_server.url}/admin/")
    visit.begin()
    return visit


@pytest.fixture
def worker(project: Project) -> Process:
    return ready_worker(project, "--processes", "1", "--name", "mail-1", jobs=JOBS)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def ended(*ids: str) -> None:
    wait_for(
        lambda: TaskResult.objects.filter(pk__in=ids).exclude(finished_at=None).count() == len(ids),
        what="the calls to end",
    )


def test_why_it_failed(visit: Visit, worker: Process) -> None:
    ended(fail.delay("the order 17 is not there").id, add.delay(1, 2).id)
    visit.open("errors")
    visit.click_link("ValueError")
    visit.click("#result_list .field-task_and_id a")
    see(visit.browser, ".jobs-sentence", "the order 17 is not there")
    assert "raise ValueError(text)" in text(visit.browser, ".field-traceback_text .jobs-own")


def test_all_failures_of_an_error_in_the_last_hour_are_retried(
    visit: Visit, worker: Process
) -> None:
    failed = [fail.delay(str(n)).id for n in range(3)]
    other = add.delay(1, "two").id
    ended(*failed, other)
    at = timezone.now() - dt.timedelta(hours=2)
    old = row(id=made_at(at), task=fail.name, state="FAILURE", error_type="builtins.ValueError")
    visit.open("errors")
    visit.click_in_row("ValueError", "form[contains(@action, 'retry')]//button")
    see(visit.browser, "#content", "3 tasks will be run again")
    visit.click("button[name=confirmed]")
    see(visit.browser, ".messagelist", "3 tasks are run again")
    wait_for(lambda: TaskAttempt.objects.filter(number=1).count() == 3)
    ended(*failed)
    assert set(TaskResult.objects.filter(attempts=2).values_list("pk", flat=True)) == set(failed)
    old.refresh_from_db()
    assert (old.attempts, TaskResult.objects.get(pk=other).attempts) == (1, 1)


def test_which_worker_is_stuck_on_which_call_and_end_it(
    visit: Visit, worker: Process, project: Project, gate: Gate
) -> None:
    ready_worker(project, "--processes", "1", "--name", "idle-1", jobs=JOBS)
    stuck = wait_at.delay(gate.path)
    gate.wait_for()
    visit.open("workers")
    wait_for(lambda: wait_at.name in text(visit.browser, "#jobs-workers-table"))
    (name,) = visit.browser.execute_script(
        "return [...document.querySelectorAll('#jobs-workers-table tbody tr')]"
        ".filter((row) => row.innerText.includes(arguments[0]))"
        ".map((row) => row.querySelector('th a').innerText)",
        wait_at.name,
    )
    assert name in ("mail-1", "idle-1")
    visit.click("#jobs-workers-table .jobs-doing button")
    see(visit.browser, "#content", stuck.id)
    visit.click("button[name=confirmed]")
    ended(stuck.id)
    assert TaskResult.objects.get(pk=stuck.id).state == State.REVOKED
    # Its worker has a new process, and goes on.
    assert add.delay(1, 2).get(timeout=60) == 3


def test_a_queue_is_paused_and_resumed_with_a_reason(visit: Visit, worker: Process) -> None:
    visit.open("queues")
    visit.click("a[href$='/pause/default/']")
    visit.browser.find_element("id", "jobs-why").send_keys("the mail server is away")
    visit.click("#content button[type=submit]")
    see(visit.browser, "#jobs-live-queues", "the mail server is away")
    assert [pause.why for pause in broker.get().paused("default")] == ["the mail server is away"]
    sent = add.delay(1, 2)

    visit.begin()
    visit.open("queues")
    visit.click("a[href$='/resume/default/']")
    visit.browser.find_element("id", "jobs-why").send_keys("it is back")
    visit.click("#content button[type=submit]")
    assert sent.get(timeout=60) == 3
    assert not broker.get().paused("default")


def test_a_paused_queue_is_resumed_from_the_dashboard(visit: Visit, broker_url: str) -> None:
    control.pause("default", by="ada", why="the mail server is away")
    visit.open("dashboard")
    visit.click_link("Queue “default” is paused by ada. “the mail server is away”")
    visit.click("#content button[type=submit]")
    assert not broker.get().paused("default")


def test_a_dead_letter_is_put_back(visit: Visit, worker: Process) -> None:
    _key, sent = letter(task=add.name, args=[1, 2])
    visit.open("deadletters")
    visit.click("#jobs-letters tbody input[type=checkbox]")
    visit.click("button[value=requeue]")
    see(visit.browser, ".messagelist", "1 message is back")
    ended(sent.id)
    assert TaskResult.objects.get(pk=sent.id).result == "3"


def test_when_the_nightly_schedule_runs_next_and_whether_it_ran_last_night(
    visit: Visit, worker: Process, project: Project
) -> None:
    Schedule.objects.all().delete()  # the demonstration site brings some of its own
    now = timezone.now()
    night = now.replace(hour=3, minute=0, second=0, microsecond=0)
    night -= dt.timedelta(days=night > now)
    rule = {"crontab": "0 3 * * *", "timezone": "UTC", "created_at": night - dt.timedelta(days=1)}
    nightly = Schedule.objects.create(name="nightly", task=add.name, args=[1, 2], **rule)
    Schedule.objects.filter(pk=nightly.pk).update(next_run_at=night)
    project.manage("runbeat")
    wait_for(lambda: TaskResult.objects.filter(task=add.name, state=State.SUCCESS).exists())
    visit.open("schedule")
    following = timezone.localtime(night + dt.timedelta(days=1))
    see(visit.browser, ".jobs-day-next", f"{following:%H:%M:%S} nightly")
    see(visit.browser, "#result_list", f"{following:%Y-%m-%d %H:%M:%S}")
    visit.click("#result_list .jobs-box-success")
    see(visit.browser, ".jobs-sentence", "Succeeded in")


def test_how_long_the_calls_of_a_queue_wait(visit: Visit, project: Project, gate: Gate) -> None:
    for n in range(40):
        add.delay(n, n)
    add.apply_async((1, 2), queue="low")
    worker = ready_worker(project, "--processes", "1", jobs=JOBS)
    wait_for(lambda: TaskResult.objects.exclude(finished_at=None).count() == 41)
    assert worker.stop() == 0
    visit.open("queues")
    visit.click_link("default")
    visit.click_link("Numbers")
    see(visit.browser, ".jobs-choice a[aria-current]", "Last hour")
    shown = text(visit.browser, "#jobs-times tbody tr:first-child").split("\t")
    assert shown[0].strip() == "Wait"
    assert len(shown) == 4
    # The same from the ledger: by the times of the rows, one after the other.
    rows = TaskResult.objects.filter(queue="default")
    waits = sorted((one.started_at - one.created_at).total_seconds() for one in rows)
    counted = metrics.total(Range.HOUR, ["default"]).wait.percentile(0.95)
    assert counted == pytest.approx(waits[int(0.95 * len(waits))], rel=0.35, abs=0.05)
    assert shown[2].strip()


def test_what_retries_next(visit: Visit, worker: Process) -> None:
    tries = [fail_hourly.delay(str(n)).id for n in range(2)]
    wait_for(lambda: TaskResult.objects.filter(state=State.RETRY).count() == 2)
    first = TaskResult.objects.filter(pk__in=tries).earliest("eta")
    # The list of all queues, and the order of one.
    visit.open("taskresult")
    visit.click_link("waiting for a retry")
    see(visit.browser, "#result_list", "in 1 h")
    visit.begin()
    visit.open("dashboard")
    visit.click("#jobs-dashboard-queues a[href*='/queue/default/?tab=due']")
    see(visit.browser, "#jobs-calls tbody tr:first-child", first.pk)
    see(visit.browser, "#jobs-calls tbody tr:first-child", "in 1 h")


def test_what_the_workflow_did(visit: Visit, worker: Process) -> None:
    chain(add.s(1, 2), echo.s(), fail.si("the bank says no"), echo.s()).delay()
    wait_for(lambda: TaskResult.objects.filter(task=fail.name, state=State.FAILURE).exists())
    visit.open("taskresult")
    visit.click("#result_list .field-task_and_id a")
    wait_for(lambda: visit.browser.find_elements("css selector", ".jobs-graph .jobs-node"))
    states = visit.browser.execute_script(
        "return ['success', 'failure'].map((state) =>"
        " document.querySelectorAll(`.jobs-graph .jobs-node-${state}`).length)"
    )
    assert states[0] == 2
    assert states[1] >= 1
    assert "fail" in text(visit.browser, "#content")
