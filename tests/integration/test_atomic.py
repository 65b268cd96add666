"""Atomic tasks: their effects and their result are one commit, or none."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from pytest_django import Settings

from jobs import Task, ledger, message, signals, task
from jobs.message import Message
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.record import outcome as rows
from jobs.worker.record.outcome import Outcome
from jobs.worker.record.recorder import Recorder
from jobs.worker.run import executor
from tests.models import Run
from tests.services import wait_for
from tests.tasks import trace
from tests.workers import dead_letters, hasten, on_redis, put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(atomic=True)
def leaves(label: str) -> str:
    Run.objects.create(label=label)
    return label.upper()


@task(atomic=True)
def leaves_and_fails(label: str) -> None:
    Run.objects.create(label=label)
    raise ValueError(label)


@task(atomic=True)
def leaves_and_sends(label: str, fails: bool) -> None:
    trace.delay(label)
    if fails:
        raise ValueError(label)


@task(atomic=True)
def leaves_what_cannot_be_stored(label: str) -> object:
    Run.objects.create(label=label)
    return object()


@task(atomic=True, bind=True, max_retries=2)
def leaves_at_the_third(self: Task[..., Any], label: str) -> None:
    Run.objects.create(label=f"{label} {self.request.retries}")
    if self.request.retries < 2:
        self.retry(countdown=0)


@task(atomic=True)
def leaves_and_loses_its_connection(label: str) -> str:
    Run.objects.create(label=label)
    if not _lost:
        _lost.append(label)
        connection.connection.close()  # what a restart of the server does to it
    return label


#: Labels of those that have lost it.
_lost: list[str] = []


def labels() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


def state_of(result: Any) -> str:
    return TaskResult.objects.get(id=result.id).state


def test_effects_and_result_are_there_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    result = leaves.delay("a")
    add = Recorder.add

    def look(self: Recorder, outcome: Outcome) -> None:
        # Before the recorder has done anything: the task's own transaction did it all.
        seen.append((state_of(result), labels()))
        add(self, outcome)

    monkeypatch.setattr(Recorder, "add", look)
    work()
    assert seen == [(State.SUCCESS, ["a"])]
    assert result.get(timeout=0) == "A"
    assert on_redis() == (0, 0)


def test_a_failure_takes_the_effects_back() -> None:
    with transaction.atomic():
        result = leaves_and_fails.delay("a")
    work()
    assert (state_of(result), labels()) == (State.FAILURE, [])
    with pytest.raises(ValueError, match="a"):
        result.get(timeout=0)


def test_what_it_sends_goes_with_it() -> None:
    leaves_and_sends.delay("kept", fails=False)
    leaves_and_sends.delay("taken back", fails=True)
    work()
    work()
    assert labels() == ["kept"]


def test_a_result_that_cannot_be_stored_takes_the_effects_back() -> None:
    result = leaves_what_cannot_be_stored.delay("a")
    work()
    assert (state_of(result), labels()) == (State.FAILURE, [])


def test_only_the_last_attempt_leaves_anything() -> None:
    result = leaves_at_the_third.delay("a")
    wait_for(lambda: (work(), ledger.ended([result.id]))[1], what="the end")
    assert (state_of(result), labels()) == (State.SUCCESS, ["a 2"])
    row = TaskResult.objects.get(id=result.id)
    assert row.failed_attempts.count() == 2


def test_one_that_ignores_its_result_has_a_row_all_the_same() -> None:
    result = leaves.apply_async(("a",), ignore_result=True)
    work()
    row = TaskResult.objects.get(id=result.id)
    assert (row.state, row.result, labels()) == (State.SUCCESS, None, ["a"])


def test_delivered_twice_it_is_done_once() -> None:
    """Its first worker has recorded its end, and died before it could acknowledge."""
    result = leaves.delay("a")
    raw = message.encode(Message(task=leaves.name, id=result.id, queue="default", args=["a"]))
    work()
    put(message.mark_redelivered(raw, crashed=True)[0])
    put(raw)  # nothing tells that it was there before
    work()
    assert (labels(), state_of(result)) == (["a"], State.SUCCESS)
    assert (on_redis(), dead_letters()) == ((0, 0), [])


def test_recorded_elsewhere_meanwhile_its_effects_are_undone() -> None:
    """Between the look whether it has ended and its transaction, another worker records its end."""

    def record_end(message: Message, **_: Any) -> None:
        row = rows.of_success(message, leaves, rows.Run("other", 0.0), "the other's")
        assert row is not None
        assert ledger.record([row]) == 1

    result = leaves.delay("a")
    signals.task_started.connect(record_end)
    try:
        work()
    finally:
        signals.task_started.disconnect(record_end)
    assert (labels(), result.get(timeout=0)) == ([], "the other's")
    assert (on_redis(), dead_letters()) == ((0, 0), [])


@pytest.mark.skipif(connection.vendor != "postgresql", reason="a file is never away")
def test_one_that_could_not_be_committed_is_run_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_COMMIT_AGAIN", 600.0)
    _lost.clear()
    result = leaves_and_loses_its_connection.delay("a")
    work()
    assert (labels(), on_redis()) == ([], (0, 0))
    hasten()
    work()
    assert (result.state, labels()) == (State.SUCCESS, ["a"])
    assert "could not be committed and is run again" in caplog.text


@task(atomic=True)
def breaks_its_connection(how: str) -> None:
    Run.objects.create(label=how)
    if how == "closes":
        connection.connection.close()
    else:
        os.close(os.dup2(os.open(os.devnull, os.O_RDWR), connection.connection.fileno()))


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["closes", "another file"])
def test_one_that_always_breaks_its_connection_ends(how: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "MAX_CRASHES": 1}
    result = breaks_its_connection.delay(how)

    def over() -> bool:
        work()
        hasten()
        return bool(ledger.ended([result.id]))

    wait_for(over, what="the end of the call")
    row = TaskResult.objects.get()
    assert (row.state, row.error_type) == (State.FAILURE, "jobs.exceptions.TransactionLeftOpen")
    assert "could not be committed, 2 times in a row" in row.error
    assert (Run.objects.count(), on_redis(), dead_letters()) == (0, (0, 0), [])


def test_an_outage_or_a_conflict_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Conflict(Exception):
        sqlstate = "40001"

    conflict = OperationalError("could not serialize access")
    conflict.__cause__ = Conflict()
    assert executor._may_be_its_own(conflict) is False
    lost = OperationalError("the connection is lost")
    assert executor._may_be_its_own(lost) is (connection.vendor != "sqlite")

    def away(ids: Any) -> Any:
        raise OperationalError("no route to host")

    monkeypatch.setattr(ledger, "ended", away)
    assert executor._may_be_its_own(lost) is False
