"""A message as it was claimed, to the delivery to run or to its outcome."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from pytest_django import Settings

from jobs import message, registry
from jobs.api.task import Task
from jobs.ledger.outcomes import Record
from jobs.message import Killed, Marks, Message
from jobs.states import State
from jobs.worker.claim import admission
from jobs.worker.record.outcome import (
    Dead,
    Delivery,
    Done,
    Later,
    Outcome,
)


def double(n: int) -> int:
    return 2 * n


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Task[..., Any]]:
    """The table of tasks holds `double`, and `frail`, which may not crash at all."""
    known = {
        "double": Task(double, name="double"),
        "frail": Task(double, name="frail", max_crashes=0),
    }
    monkeypatch.setattr(registry, "tasks", known)
    monkeypatch.setattr(admission, "tasks", known)
    return known


def prepared_of(sent: Message, now: float | None = None, **marks: Any) -> Delivery | Outcome:
    raw = message.encode(sent)
    if marks:
        raw = message.mark(raw, **marks)
    now = time.time() if now is None else now
    return admission.prepare("default", 7, raw, worker="w/1", now=now)


def ended(sent: Message, now: float | None = None, **marks: Any) -> Outcome:
    prepared = prepared_of(sent, now, **marks)
    assert isinstance(prepared, Outcome)
    return prepared


def sent(task: str = "double", **fields: Any) -> Message:
    return Message(task=task, id=message.new_id(), queue="default", **{"args": [4], **fields})


def record_of(outcome: Outcome) -> Record:
    assert outcome.record is not None
    return outcome.record


def test_a_good_message_is_a_delivery() -> None:
    one = sent()
    prepared = prepared_of(one)
    assert isinstance(prepared, Delivery)
    assert (prepared.queue, prepared.number, prepared.message.id) == ("default", 7, one.id)
    assert prepared.task.run is double


def test_an_unknown_task() -> None:
    prepared = prepared_of(sent("dubble"))
    assert isinstance(prepared, Outcome)
    assert isinstance(prepared, Dead)
    assert "Did you mean 'double'?" in prepared.reason
    assert record_of(prepared).state == State.FAILURE
    # Whoever looks for a dead letter's call finds its end.
    assert record_of(ended(sent("dubble", ignore_result=True))).state == State.FAILURE
    assert record_of(ended(sent("dubble", ignore_result=True, ledger=True))).state == State.FAILURE


def test_expiry() -> None:
    now = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    one = sent(expires=now)
    assert isinstance(prepared_of(one, now.timestamp() - 0.001), Delivery)
    late = prepared_of(one, now.timestamp())
    assert isinstance(late, Outcome)
    assert (type(late), late.ended) == (Done, one.id)
    assert (record_of(late).state, record_of(late).error) == (State.REVOKED, "expired")
    quiet = prepared_of(sent(expires=now, ignore_result=True), now.timestamp())
    assert isinstance(quiet, Outcome)
    assert quiet.record is None


def test_an_eta_that_the_broker_does_not_hold() -> None:
    """Celery's clients put such messages on the queue itself."""
    eta = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    ours = message.encode(sent(eta=eta, priority=6))
    assert message.decode(ours, "default").held
    foreign = ours.replace(b'"jobs_due":true', b'"jobs_due":false')
    found = admission.prepare("default", 7, foreign, worker="w", now=eta.timestamp() - 1)
    assert isinstance(found, Outcome)
    assert (type(found), found.due, found.priority) == (Later, eta.timestamp(), 6)
    assert message.decode(found.raw, "default").held
    due = admission.prepare("default", 7, foreign, worker="w", now=eta.timestamp())
    assert isinstance(due, Delivery)
    # What the broker has held runs, whatever this machine's clock says.
    assert isinstance(
        admission.prepare("default", 7, ours, worker="w", now=eta.timestamp() - 1), Delivery
    )


# ------------------------------------------------------------------ crashed and killed


def test_crashes_are_allowed_up_to_a_number(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "MAX_CRASHES": 2}
    assert isinstance(prepared_of(sent(marks=Marks(crashes=2))), Delivery)
    one = sent(marks=Marks(crashes=3))
    lost = ended(one)
    assert (type(lost), lost.ended) == (Dead, one.id)
    assert lost.reason.startswith(
        f"WorkerLost: 3 processes died while running task 'double'[{one.id}]"
    )
    assert record_of(lost).error_type == "jobs.exceptions.WorkerLost"
    # The task's own number counts more.
    assert isinstance(prepared_of(sent("frail")), Delivery)
    assert isinstance(ended(sent("frail", marks=Marks(crashes=1))), Dead)


def test_killed_for_its_time_limit() -> None:
    one = ended(sent(), jobs_killed=Killed.TIME_LIMIT)
    assert (type(one), record_of(one).state) == (Done, State.FAILURE)
    assert record_of(one).error_type == "jobs.exceptions.TimeLimitExceeded"
    assert record_of(one).message != b""  # kept, to be retried


def test_killed_for_its_revocation() -> None:
    one = ended(sent(), jobs_killed=Killed.REVOKED)
    assert (type(one), record_of(one).state) == (Done, State.REVOKED)
    assert record_of(one).error == "terminated"


def test_a_mark_that_nobody_knows_is_passed_by() -> None:
    assert isinstance(prepared_of(sent(), jobs_killed="by moonlight"), Delivery)


# -------------------------------------------------------------------- offered again


def test_an_unknown_task_is_offered_again(
    settings: Settings,
    tasks: dict[str, Task[..., Any]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.JOBS = {**settings.JOBS, "UNKNOWN_TASK_SECONDS": 60}
    monkeypatch.setattr(admission, "_told_unknown", set())
    one = sent("newer", priority=6)
    first = ended(one, 1_000_000.0)
    assert (type(first), first.priority, first.record) == (Later, 6, None)
    assert 0 < first.due - time.time() <= 5
    # Since then, not since it was offered last; and it is held by the broker.
    again = admission.prepare("default", 8, first.raw, worker="w/2", now=1_000_059.9)
    assert isinstance(again, Outcome)
    assert isinstance(again, Later)
    seen = message.decode(again.raw, "default")
    assert (seen.marks.unknown_since, seen.held) == (1_000_000.0, True)
    (said,) = caplog.messages  # once, however often it is offered
    assert "no task 'newer' is known to this process; its calls are offered again" in said
    last = admission.prepare("default", 9, again.raw, worker="w/1", now=1_000_060.0)
    assert isinstance(last, Outcome)
    assert (type(last), last.ended) == (Dead, one.id)
    assert record_of(last).state == State.FAILURE
    tasks["newer"] = tasks["double"]
    assert isinstance(admission.prepare("default", 9, again.raw, worker="w/1", now=0.0), Delivery)


# -------------------------------------------------------------------- not to be shown


def test_sensitive_arguments_are_hidden(tasks: dict[str, Task[..., Any]]) -> None:
    def sign_in(name: str, password: str, code: int = 0) -> None: ...

    tasks["sign_in"] = Task(sign_in, name="sign_in", sensitive=["password", "code"])
    for call in (
        {"args": ["ann", "s3cret", 1]},
        {"args": ["ann"], "kwargs": {"password": "s3cret"}},
    ):
        found = prepared_of(sent("sign_in", **call))
        assert isinstance(found, Delivery)
        assert "s3cret" not in f"{found.message.shown_args} {found.message.shown_kwargs}"
        assert "ann" in found.message.shown_args
        expired = ended(sent("sign_in", expires=dt.datetime(2020, 1, 1, tzinfo=dt.UTC), **call))
        assert "s3cret" not in record_of(expired).args + record_of(expired).kwargs
