"""`track_started`: the ledger says which calls run, for those who want to pay for it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import Task, ledger, task
from jobs.ledger import recovery
from jobs.models import TaskResult
from jobs.running.request import Request
from jobs.states import State
from tests.integration.test_ledger import record_of
from tests.models import Run
from tests.tasks import trace
from tests.workers import work

pytestmark = pytest.mark.django_db(transaction=True)

#: What the running call has read of its own row.
SEEN: list[tuple[str, int, str, bool]] = []


def see(task_id: str) -> None:
    row = TaskResult.objects.get(pk=task_id)
    times = row.started_at is not None and row.finished_at is None
    SEEN.append((row.state, row.attempts, row.error_type, times))


@pytest.fixture(autouse=True)
def _unseen() -> None:
    SEEN.clear()


@task(bind=True, track_started=True)
def look(self: Task[..., Any]) -> None:
    see(self.request.id)


@task(bind=True)
def look_if_set(self: Task[..., Any]) -> None:
    SEEN.append(("", TaskResult.objects.filter(pk=self.request.id).count(), "", False))


@task(bind=True, track_started=True, autoretry_for=(ValueError,), default_retry_delay=0)
def look_twice(self: Task[..., Any]) -> None:
    see(self.request.id)
    if self.request.retries == 0:
        raise ValueError("once")


@task(bind=True, track_started=True)
async def async_look(self: Task[..., Any]) -> None:
    await sync_to_async(see)(self.request.id)


@task(batch=3, track_started=True)
def look_together(requests: list[Request]) -> None:
    for request in requests:
        see(request.id)


@task(bind=True, track_started=True, atomic=True)
def look_atomic(self: Task[..., Any]) -> None:
    see(self.request.id)


@task(track_started=True, ignore_result=True)
def without_row() -> None:
    SEEN.append(("", TaskResult.objects.count(), "", False))


@task(track_started=True)
def tracked_trace(label: str) -> None:
    Run.objects.create(label=label)


@pytest.mark.parametrize("asked", [look, async_look, look_together, look_atomic])
@pytest.mark.parametrize("durably", [True, False])
def test_the_row_says_that_it_runs(broker_url: str, asked: Any, durably: bool) -> None:
    if durably:
        with transaction.atomic():
            asked.delay()
    else:
        asked.delay()
    work()
    assert SEEN == [(State.STARTED, 1, "", True)]
    row = TaskResult.objects.get()
    assert (row.state, row.attempts) == (State.SUCCESS, 1)
    assert row.finished_at is not None


def test_each_attempt_does(broker_url: str) -> None:
    look_twice.delay()
    work()
    assert SEEN == [(State.STARTED, 1, "", True), (State.STARTED, 2, "", True)]
    row = TaskResult.objects.get()
    assert (row.state, row.attempts, row.failed_attempts.count()) == (State.SUCCESS, 2, 1)


def test_without_a_row_there_is_none(broker_url: str) -> None:
    without_row.delay()
    work()
    assert SEEN == [("", 0, "", False)]


@pytest.mark.parametrize(("setting", "rows"), [(False, 0), (True, 1)])
def test_the_setting_is_for_tasks_that_do_not_say(
    broker_url: str, settings: Settings, setting: bool, rows: int
) -> None:
    settings.JOBS = {**settings.JOBS, "TRACK_STARTED": setting}
    look_if_set.delay()
    work()
    assert [("", rows, "", False)] == SEEN


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILURE, State.REVOKED])
def test_a_late_start_changes_no_end(end: State) -> None:
    ledger.record([record_of("a", end, attempts=1)])
    ledger.record_start(record_of("a", State.STARTED, attempts=1, worker="late"))
    row = TaskResult.objects.get()
    assert (row.state, row.worker == "late") == (end, False)


@pytest.mark.parametrize(
    ("state", "attempts", "expected"),
    [
        (State.PENDING, 0, State.STARTED),
        (State.RETRY, 1, State.STARTED),
        # The attempt has been recorded: its message was delivered once more.
        (State.RETRY, 2, State.RETRY),
        (State.RETRY, 3, State.RETRY),
        # Its process died; the next one runs it.
        (State.STARTED, 2, State.STARTED),
    ],
)
def test_only_a_later_attempt_counts(state: State, attempts: int, expected: State) -> None:
    ledger.record([record_of("a", state, attempts=attempts)])
    ledger.record_start(record_of("a", State.STARTED, attempts=2, worker="new"))
    row = TaskResult.objects.get()
    assert (row.state, row.worker == "new") == (expected, expected == State.STARTED)


def test_a_database_that_refuses_it_keeps_no_call_from_running(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise DatabaseError("no")

    monkeypatch.setattr(ledger, "record_start", refuse)
    tracked_trace.delay("ran")
    work()
    assert list(Run.objects.values_list("label", flat=True)) == ["ran"]
    assert TaskResult.objects.get().state == State.SUCCESS


def test_a_running_call_whose_message_is_lost_is_put_back(
    broker_url: str,
) -> None:
    """The worker and the broker's data are gone; only the ledger knows of the call."""
    later = timezone.now()
    ledger.record([record_of("a", State.STARTED, task=trace.name, message=b"{}")])
    TaskResult.objects.update(published_at=later, started_at=later)
    after = timezone.now()
    found = list(itertools.chain(*recovery.lost(after)))
    assert [call.id for call in found] == ["a"]
