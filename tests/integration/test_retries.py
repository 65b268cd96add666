"""Attempts that are followed by others, in the ledger and on the broker."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    Task,
    broker,
    control,
    ledger,
    message,
    registry,
    signals,
    task,
)
from jobs.exceptions import Ignore, MaxRetriesExceeded, Reject, TaskRevoked
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.claim import admission, consumer
from tests.models import Run
from tests.services import wait_for
from tests.tasks import trace
from tests.workers import dead_letters, hasten, on_redis, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


class TooEarly(Exception):
    pass


@task(bind=True, max_retries=5)
def succeeds_at(self: Task[..., Any], attempt: int, **how: Any) -> int:
    """Ask for other attempts until this one."""
    if self.request.retries + 1 < attempt:
        self.retry(exc=TooEarly(f"attempt {self.request.retries + 1}"), **{"countdown": 0, **how})
    return self.request.retries


@task(bind=True, max_retries=2)
def never_succeeds(self: Task[..., Any]) -> None:
    self.retry(countdown=0)


@task(bind=True)
def raises_in_the_end(self: Task[..., Any], most: int) -> None:
    try:
        raise LookupError("nothing there")
    except LookupError:
        self.retry(countdown=0, max_retries=most)


@task(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), default_retry_delay=0)
def opens(kind: str) -> None:
    Run.objects.create(label=kind)
    raise {"os": OSError, "missing": FileNotFoundError, "key": KeyError}[kind](kind)


@task(autoretry_for=(OSError,), default_retry_delay=0, max_retries=1)
async def async_opens() -> None:
    raise OSError("async")


@task(autoretry_for=(TooEarly,), retry_when=lambda error, retries: 0 if retries < 2 else None)
def decides() -> None:
    raise ValueError("whatever it is")


@task(bind=True, max_retries=3)
def with_other_arguments(self: Task[..., Any], n: int, *, step: int = 1) -> int:
    if n < 4:
        self.retry(countdown=0, args=[n + step], kwargs={"step": step + 1})
    return n


@task(autoretry_for=(TooEarly,), default_retry_delay=0, acks="early")
def is_acknowledged_early() -> None:
    Run.objects.create(label=f"in flight: {on_redis()[1]}")
    if Run.objects.count() < 3:
        raise TooEarly


@task(acks="early")
async def async_is_acknowledged_early() -> int:
    return on_redis()[1]


@task(acks="early")
def rejects_early() -> None:
    raise Reject("not for me")


@task
def rejects(requeue: bool) -> None:
    Run.objects.create(label="rejects")
    if Run.objects.count() < 3:
        raise Reject("not now", requeue=requeue)


@task
def ignores() -> None:
    Run.objects.create(label="ignores")
    raise Ignore("not mine")


def row_of(result: Any) -> TaskResult:
    return TaskResult.objects.get(id=result.id)


def attempts_of(result: Any) -> list[tuple[int, str]]:
    found = row_of(result).failed_attempts.order_by("number")
    return list(found.values_list("number", "error"))


def work_to_the_end(result: Any) -> TaskResult:
    """Work, and again when what was put among the due ones is due, until the task has ended."""

    def ended() -> bool:
        work()
        return bool(ledger.ended([result.id]))

    wait_for(ended, what="the end of the task")
    return row_of(result)


# ------------------------------------------------------------------------------ self.retry


def test_success_after_two_failures_keeps_both() -> None:
    result = succeeds_at.delay(3)
    row = work_to_the_end(result)
    assert (row.state, row.attempts, row.error, row.error_type) == (State.SUCCESS, 3, "", "")
    assert result.get(timeout=0) == 2
    assert attempts_of(result) == [(1, "attempt 1"), (2, "attempt 2")]
    first, second = row.failed_attempts.order_by("number")
    assert first.error_type == f"{__name__}.TooEarly"
    assert "TooEarly" in first.traceback
    assert first.started_at is not None
    assert first.started_at <= first.finished_at <= second.finished_at
    assert first.worker.startswith("here/")
    assert (on_redis(), dead_letters()) == ((0, 0), [])


def test_a_burst_waits_for_what_is_due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt is due in a whole millisecond, which has mostly not come yet."""
    monkeypatch.setattr(consumer, "_AT_ONCE", 1.0)
    result = succeeds_at.delay(3, countdown=0.2)
    work()
    assert (result.state, result.get(timeout=1)) == (State.SUCCESS, 2)


def test_the_row_of_one_that_waits() -> None:
    began = timezone.now()
    result = succeeds_at.delay(2, countdown=3600)
    work()
    row = row_of(result)
    assert (row.state, row.attempts, row.finished_at) == (State.RETRY, 1, None)
    assert (row.error_type, row.error) == (f"{__name__}.TooEarly", "attempt 1")
    assert row.eta is not None
    assert 3600 <= (row.eta - began).total_seconds() < 3660
    assert broker.get().stats("default").due == 1
    # The message that waits is the row's, so that it can be recovered.
    waits = message.decode(bytes(row.message), "default")
    assert (waits.retries, waits.eta, waits.id) == (1, row.eta, result.id)
    assert result.state == State.RETRY
    assert not result.ready()


def test_at_a_moment() -> None:
    eta = timezone.now() + dt.timedelta(hours=2)

    @task(bind=True, name="tests.at_a_moment")
    def at_a_moment(self: Task[..., Any]) -> None:
        self.retry(eta=eta)

    try:
        result = at_a_moment.delay()
        work()
    finally:
        del registry.tasks["tests.at_a_moment"]
    row = row_of(result)
    assert (row.state, row.eta) == (State.RETRY, eta)


def test_no_attempt_left() -> None:
    result = never_succeeds.delay()
    row = work_to_the_end(result)
    assert (row.state, row.attempts) == (State.FAILURE, 3)
    assert row.error_type == "jobs.exceptions.MaxRetriesExceeded"
    assert [number for number, _ in attempts_of(result)] == [1, 2]
    with pytest.raises(MaxRetriesExceeded, match="has had 3 attempts"):
        result.get(timeout=0)


def test_no_attempt_left_after_an_exception() -> None:
    """As in Celery: the exception that was being handled is told as its cause."""
    result = raises_in_the_end.delay(1)
    row = work_to_the_end(result)
    assert (row.state, row.attempts) == (State.FAILURE, 2)
    assert "LookupError: nothing there" in row.traceback
    assert attempts_of(result) == [(1, "nothing there")]
    with pytest.raises(MaxRetriesExceeded, match="has had 2 attempts"):
        result.get(timeout=0)


def test_with_other_arguments() -> None:
    with transaction.atomic():
        result = with_other_arguments.delay(0)
    row = work_to_the_end(result)
    # 0 + 1 + 2 + 3; what the call was at first stays in the ledger.
    assert (row.state, row.result, row.args) == (State.SUCCESS, "6", "[0]")


def test_a_call_that_keeps_no_result() -> None:
    result = succeeds_at.apply_async((3,), ignore_result=True)
    wait_for(lambda: (work(), broker.get().stats("default")[:3] == (0, 0, 0))[1])
    assert TaskResult.objects.count() == 0
    assert result.id


def test_the_signal_tells_of_it() -> None:
    heard: list[tuple[str, str, float]] = []

    def hear(sender: Any, exception: Any, countdown: float, **_: Any) -> None:
        heard.append((sender.name, str(exception), countdown))

    signals.task_retried.connect(hear)
    try:
        succeeds_at.delay(2, countdown=600)
        work()
    finally:
        signals.task_retried.disconnect(hear)
    ((name, text, countdown),) = heard
    assert (name, text) == (f"{__name__}.succeeds_at", "attempt 1")
    assert 590 < countdown <= 600


def test_a_lost_workers_retry_changes_nothing() -> None:
    """It was so slow that others have had the call since, as far as its end or another attempt."""
    result = succeeds_at.delay(2)
    work_to_the_end(result)
    late = ledger.Record(**{name: getattr(row_of(result), name) for name in ledger.Record._fields})
    late = late._replace(state=State.RETRY.value, attempts=1, result=None)
    assert ledger.record([late]) == 0
    assert row_of(result).state == State.SUCCESS
    waits = succeeds_at.delay(9)
    work()
    wait_for(lambda: (work(), row_of(waits).attempts >= 2)[1])
    before = row_of(waits).attempts
    assert ledger.record([late._replace(id=waits.id, error="late")]) == 0
    assert (row_of(waits).attempts, row_of(waits).error) == (before, f"attempt {before}")


# ------------------------------------------------------------------------------- by itself


def test_after_the_named_exceptions() -> None:
    tried, missing, key = opens.delay("os"), opens.delay("missing"), opens.delay("key")
    row = work_to_the_end(tried)
    assert (row.state, row.attempts, row.error_type) == (State.FAILURE, 4, "builtins.OSError")
    assert [row_of(missing).attempts, row_of(key).attempts] == [1, 1]
    labels = list(Run.objects.values_list("label", flat=True))
    assert sorted(labels) == ["key", "missing", "os", "os", "os", "os"]
    with pytest.raises(OSError, match="os"):
        tried.get(timeout=0)


def test_an_async_task() -> None:
    row = work_to_the_end(async_opens.delay())
    assert (row.state, row.attempts) == (State.FAILURE, 2)


def test_as_a_policy_decides() -> None:
    row = work_to_the_end(decides.delay())
    assert (row.state, row.attempts, row.error_type) == (State.FAILURE, 3, "builtins.ValueError")


# ------------------------------------------------------------------------ reject and ignore


def test_rejected_it_is_a_dead_letter() -> None:
    result = rejects.delay(requeue=False)
    work()
    (letter,) = dead_letters()
    assert letter.reason == "Reject: not now"
    assert row_of(result).state == State.FAILURE
    with pytest.raises(Reject, match="not now"):
        result.get(timeout=0)


def test_rejected_and_requeued_it_runs_again() -> None:
    result = rejects.delay(requeue=True)
    row = work_to_the_end(result)
    assert (row.state, row.attempts, Run.objects.count()) == (State.SUCCESS, 1, 3)
    assert attempts_of(result) == []


def test_ignored_it_ends_as_revoked_and_nothing_else_is_recorded() -> None:
    outside = ignores.delay()
    with transaction.atomic():
        inside = ignores.delay()
        light = ignores.apply_async(ignore_result=True)
    gone = ignores.apply_async(ignore_result=True)
    work()
    assert Run.objects.count() == 4
    assert (on_redis(), dead_letters()) == ((0, 0), [])
    for result in (outside, inside, light):
        row = row_of(result)
        assert (row.state, row.attempts) == (State.REVOKED, 1)
        assert row.error == "The task raised Ignore, so nothing else was recorded: not mine"
    with pytest.raises(TaskRevoked, match="raised Ignore"):
        inside.get(timeout=0)
    assert not TaskResult.objects.filter(id=gone.id).exists()


# ------------------------------------------------------------------------ acknowledged early


def test_acknowledged_before_it_runs() -> None:
    result = async_is_acknowledged_early.delay()
    work()
    assert result.get(timeout=0) == 0


def test_acknowledged_early_and_tried_again() -> None:
    result = is_acknowledged_early.delay()
    row = work_to_the_end(result)
    assert (row.state, row.attempts) == (State.SUCCESS, 3)
    assert list(Run.objects.values_list("label", flat=True)) == ["in flight: 0"] * 3
    assert [number for number, _ in attempts_of(result)] == [1, 2]
    assert broker.get().stats("default")[:4] == (0, 0, 0, 0)


# --------------------------------------------------------------------------- unknown tasks


@pytest.fixture
def _offered_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the test says so."""
    monkeypatch.setattr(admission, "_OFFER_AGAIN", 600.0)


@pytest.mark.usefixtures("_offered_late")
def test_an_unknown_task_is_known_to_newer_code(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBS = {**settings.JOBS, "UNKNOWN_TASK_SECONDS": 60}
    task_id = put_message(task="tests.tasks.newer", args=["from the future"])
    work()
    assert broker.get().stats("default")[:4] == (0, 0, 1, 0)
    assert TaskResult.objects.count() == 0
    monkeypatch.setitem(registry.tasks, "tests.tasks.newer", trace)
    hasten()
    work()
    row = TaskResult.objects.get(id=task_id)
    assert (row.state, row.attempts) == (State.SUCCESS, 1)


@pytest.mark.usefixtures("_offered_late")
def test_an_unknown_task_is_dead_in_the_end(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "UNKNOWN_TASK_SECONDS": 60}
    task_id = put_message(task="tests.tasks.tarce")
    work()
    assert dead_letters() == []
    settings.JOBS = {**settings.JOBS, "UNKNOWN_TASK_SECONDS": 0}
    hasten()
    work()
    assert "Did you mean 'tests.tasks.trace'?" in dead_letters()[0].reason
    assert TaskResult.objects.get(id=task_id).state == State.FAILURE


# ---------------------------------------------------------------------- not to be shown


@task(sensitive=["password"], autoretry_for=(TooEarly,), default_retry_delay=600, max_retries=1)
def signs_in(name: str, password: str) -> None:
    raise TooEarly(name)


@pytest.mark.parametrize("positional", [True, False])
def test_sensitive_arguments_are_shown_nowhere(
    positional: bool, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"s3cret-{os.getpid()}"
    with transaction.atomic(), caplog.at_level(0):
        if positional:
            result = signs_in.delay("ann", secret)
        else:
            result = signs_in.apply_async(kwargs={"name": "ann", "password": secret})
    pending = row_of(result)
    work()
    waiting = row_of(result)
    hasten()
    ended = work_to_the_end(result)
    assert (waiting.state, ended.state) == (State.RETRY, State.FAILURE)
    assert control.retry(result.id)
    again = row_of(result)
    for row in (pending, waiting, ended, again):
        told = [getattr(row, f.name) for f in row._meta.fields if f.name != "message"]
        assert secret not in str(told)
        assert "ann" in row.args + row.kwargs
        headers = message.decode(bytes(row.message), "default").wire_headers.decode()
        assert secret not in headers
        assert "ann" in headers or row is again  # nobody knows there which one it was
    for attempt in ended.failed_attempts.all():
        assert secret not in f"{attempt.error}{attempt.traceback}"
    assert secret not in caplog.text


def test_rejected_after_its_acknowledgement_it_is_a_dead_letter_all_the_same() -> None:
    result = rejects_early.delay()
    (before,) = broker.get().scan("default")
    work()
    (letter,) = dead_letters()
    assert (letter.raw, letter.reason) == (before, "Reject: not for me")
    assert row_of(result).state == State.FAILURE
    assert on_redis() == (0, 0)


@pytest.mark.parametrize(
    ("expires", "state"), [(0, State.REVOKED), (60, State.SUCCESS), (None, State.SUCCESS)]
)
def test_the_next_attempt_may_expire_at_another_time(expires: int | None, state: State) -> None:
    sent = succeeds_at.apply_async((2,), {"expires": expires}, expires=30)
    work()
    assert sent.state == state


@pytest.mark.parametrize("how", [{"exchange": "low"}, {"link": "x"}, {"expires": "soon"}])
def test_an_attempt_can_not_be_asked_for_otherwise(how: dict[str, Any]) -> None:
    sent = succeeds_at.apply_async((2,), how)
    work()
    assert sent.state == State.FAILURE
    with pytest.raises(TypeError, match=rf"retry\(\).*{next(iter(how))}"):
        sent.get(timeout=0)
