"""What the database refuses, or can't take at once, keeps nothing else from being recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from msgspec.structs import replace

from jobs import broker, ledger, task
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State
from jobs.worker.claim import admission
from jobs.worker.record import recorder
from jobs.worker.record.outcome import (
    Delivery,
    Following,
    Later,
    Outcome,
    weighed,
)
from jobs.worker.record.recorder import FULL, Recorder
from jobs.worker.run import executor
from jobs.worker.run.executor import Limits, ThreadTimer
from tests.tasks import add
from tests.workers import dead_letters, on_redis, put_message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

LIMITS = Limits(ThreadTimer())


@task(autoretry_for=(ValueError,), default_retry_delay=3600)
def fails_and_waits() -> None:
    raise ValueError("slow")


#: What a column can't hold, on every database that these tests run on.
REFUSED: dict[str, dict[str, Any]] = {
    "a negative place": {"group_index": -1},
    "a place of 70 bits": {"group_index": 2**70},
    "a surrogate in a group": {"group_id": "\ud800"},
    "a surrogate in a root": {"root_id": "\udfff"},
    "a surrogate in a parent": {"parent_id": "\ud800"},
    "a surrogate in a task": {"task": "x\ud800"},
    "a surrogate in an error": {"error": "\ud800"},
    "a negative attempt": {"attempts": -1},
    "an attempt of 70 bits": {"attempts": 2**70},
}
#: SQLite doesn't look at these.
ON_POSTGRESQL: dict[str, dict[str, Any]] = {
    "NUL in a group": {"group_id": "a\0"},
    "NUL in a result": {"result": "a\0"},
    "a root of 300 characters": {"root_id": "x" * 300},
    "a worker of 300 characters": {"worker": "x" * 300},
}


def outcomes(count: int, **fields: Any) -> list[Outcome]:
    """Of so many calls that were claimed and run."""
    for n in range(count):
        put_message(task=add.name, args=[n, 0], **fields)
    made = []
    first = 1
    while len(made) < count:
        for number, raw in broker.get().claim("default", "w", first, count, 60).messages:
            prepared = admission.prepare("default", number, raw, worker="w", now=time.time())
            assert isinstance(prepared, Delivery)
            made.append(executor.run(prepared, "w", LIMITS))
        first = len(made) + 1
    return made


def with_record(outcome: Outcome, **fields: Any) -> Outcome:
    """The same with other fields of its record."""
    assert outcome.record is not None
    return replace(outcome, record=outcome.record._replace(**fields))


def write(*some: Outcome) -> Recorder:
    made = Recorder("w")
    for outcome in some:
        made.add(outcome)
    while made.backlog and not made._aside:
        made.step()
    return made


@pytest.mark.parametrize("fields", [pytest.param(v, id=k) for k, v in REFUSED.items()])
def test_one_that_is_refused_is_stored_as_far_as_it_can_be(fields: dict[str, Any]) -> None:
    bad, good = outcomes(2)
    write(with_record(bad, **fields), good)
    assert set(TaskResult.objects.values_list("state", flat=True)) == {State.SUCCESS}
    assert TaskResult.objects.filter(id__in=[bad.ended, good.ended]).count() == 2
    assert on_redis() == (0, 0)


@pytest.mark.postgres
@pytest.mark.parametrize("fields", [pytest.param(v, id=k) for k, v in ON_POSTGRESQL.items()])
def test_one_that_postgresql_refuses(fields: dict[str, Any]) -> None:
    bad, good = outcomes(2)
    write(with_record(bad, **fields), good)
    assert TaskResult.objects.filter(id__in=[bad.ended, good.ended]).count() == 2
    assert on_redis() == (0, 0)


def test_what_can_be_kept_is() -> None:
    (bad,) = outcomes(1)
    write(with_record(bad, group_index=-1, root_id="root"))
    row = TaskResult.objects.get(id=bad.ended)
    assert (row.state, row.result, row.args, row.root_id, row.error) == (
        *(State.SUCCESS, "0", "[0,0]", "root", ""),
    )


def test_one_of_which_no_row_can_be_made_is_a_dead_letter() -> None:
    bad, good = outcomes(2)
    write(with_record(bad, id="\ud800"), good)
    assert TaskResult.objects.get().id == good.ended
    assert on_redis() == (0, 0)
    (letter,) = dead_letters()
    assert "can't be recorded" in letter.reason


def test_a_batch_that_is_refused_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    made = outcomes(FULL)
    for place in (0, 100, 250):
        made[place] = with_record(made[place], group_index=-1)
    statements = []
    monkeypatch.setattr(recorder, "write", _counting(recorder.write, statements))
    write(*made)
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == FULL
    assert len(statements) < 3 * 2 * 9 + 12


def _counting(call: Any, calls: list[Any]) -> Any:
    def counted(given: Any, *more: Any) -> Any:
        calls.append(given)
        return call(given, *more)

    return counted


def test_a_fault_of_our_own_in_one_does_not_end_the_process() -> None:
    bad, good = outcomes(2)
    bad = replace(bad, following=Following(ends=[None]))  # type: ignore[list-item]
    write(bad, good)
    assert TaskResult.objects.get().id == good.ended
    assert len(dead_letters()) == 1


@pytest.fixture
def _no_attempts() -> Iterator[None]:
    """Their table is away, as in the middle of a migration."""
    with connection.schema_editor() as editor:
        editor.alter_db_table(TaskAttempt, "jobs_taskattempt", "away")
    yield
    with connection.schema_editor() as editor:
        if "away" in connection.introspection.table_names():
            editor.alter_db_table(TaskAttempt, "away", "jobs_taskattempt")


@pytest.mark.usefixtures("_no_attempts")
def test_a_missing_table_holds_up_only_what_needs_it(caplog: pytest.LogCaptureFixture) -> None:
    put_message(task=fails_and_waits.name)
    ((number, raw),) = broker.get().claim("default", "w", 1, 1, 60).messages
    prepared = admission.prepare("default", number, raw, worker="w", now=time.time())
    assert isinstance(prepared, Delivery)
    retried = executor.run(prepared, "w", LIMITS)
    assert isinstance(retried, Later)
    (good,) = outcomes_from(2)
    made = write(retried, good)
    assert TaskResult.objects.get().id == good.ended
    assert not made.idle
    assert "can't be recorded yet" in caplog.text
    with connection.schema_editor() as editor:
        editor.alter_db_table(TaskAttempt, "away", "jobs_taskattempt")
    made._aside_until = 0.0
    made.step()
    assert made.idle
    assert TaskAttempt.objects.count() == 1
    assert broker.get().stats("default").due == 1


def outcomes_from(first: int) -> list[Outcome]:
    put_message(task=add.name, args=[1, 2])
    made = []
    for number, raw in broker.get().claim("default", "w", first, 1, 60).messages:
        prepared = admission.prepare("default", number, raw, worker="w", now=time.time())
        assert isinstance(prepared, Delivery)
        made.append(executor.run(prepared, "w", LIMITS))
    return made


@pytest.mark.postgres
def test_a_locked_row_holds_up_only_its_call() -> None:
    first, second, third = outcomes(3)
    ledger.record([r._replace(state=State.RETRY) for r in [first.record] if r is not None])
    other = connection.get_new_connection(connection.get_connection_params())
    other.autocommit = False
    try:
        other.execute("SELECT 1 FROM jobs_taskresult WHERE id = %s FOR UPDATE", [first.ended])
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
        made = write(first, second, third)
        ended = TaskResult.objects.filter(state=State.SUCCESS)
        assert set(ended.values_list("id", flat=True)) == {second.ended, third.ended}
    finally:
        other.close()
    made._aside_until = 0.0
    made.step()
    assert ended.count() == 3
    connection.close()


def test_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is halved, refused or put aside."""
    made, tried = outcomes(4), []

    def away(*args: Any) -> Any:
        tried.append(args)
        raise OperationalError("the server has closed the connection")

    sizes: list[int] = []
    write_part, ended = recorder.write, ledger.ended

    def try_to_write(part: Any, *more: Any) -> Any:
        if len(tried) < 6:
            away(part)
        sizes.append(len(part))
        return write_part(part, *more)

    monkeypatch.setattr(recorder, "write", try_to_write)
    monkeypatch.setattr(ledger, "ended", lambda ids: away(ids) if len(tried) < 6 else ended(ids))
    write(*made)
    assert sizes == [4]
    assert TaskResult.objects.count() == 4


def test_a_large_row_is_weighed() -> None:
    small, large = outcomes(2)
    small, large = weighed(small), weighed(with_record(large, result="x" * 3_000_000))
    assert small.size == 0
    assert large.size > 3_000_000
    made = Recorder("w")
    for outcome in (small, large, large, small):
        made.add(outcome)
    assert [len(made._next_batch()), len(made._next_batch())] == [2, 2]
    assert made._bytes == 0
    assert not made.crowded
    for _ in range(11):
        made.add(large)
    assert made.crowded
