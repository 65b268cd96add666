"""What is too old is deleted, and nothing else."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries, Settings

from jobs import registry, tasks
from jobs.api.task import task_of
from jobs.ledger import partitions, pruning
from jobs.ledger.pruning import prune
from jobs.models import Schedule, ScheduleRun, TaskAttempt, TaskResult
from jobs.schedules.rows import sync
from jobs.states import State
from tests.workers import work

pytestmark = pytest.mark.django_db(transaction=True)

NOW = dt.datetime(2026, 6, 1, 3, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def own_id(at: dt.datetime) -> str:
    """An id as this program gives it at that moment."""
    noise = uuid.uuid4().int & ((1 << 76) - 1)
    return str(uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 0x7 << 76 | noise))


def result(days: float, state: State = State.SUCCESS, **fields: Any) -> str:
    """A result that ended so many days ago, and was sent a minute before; its id."""
    ended = NOW - days * DAY
    sent = ended - dt.timedelta(minutes=1)
    row = {"id": own_id(sent), "task": "a", "queue": "default", "created_at": sent, **fields}
    TaskResult.objects.create(state=state, finished_at=ended, **row)
    return str(row["id"])


def left() -> set[str]:
    return set(TaskResult.objects.values_list("id", flat=True))


@pytest.fixture
def own_age() -> Iterator[Any]:
    """Make a task whose results are kept as long as it says itself."""
    names = []

    def make(name: str, age: Any) -> None:
        def run() -> None: ...

        task_of(run, name=name, result_expires=age)
        names.append(name)

    yield make
    for name in names:
        del registry.tasks[name]


def test_each_end_has_its_age() -> None:
    result(7.1)
    result(30.1, State.FAILURE)
    result(7.1, State.REVOKED)
    kept = {result(6.9), result(29.9, State.FAILURE), result(6.9, State.REVOKED)}
    assert pruning.count(NOW) == {"SUCCESS": 1, "FAILURE": 1, "REVOKED": 1}
    assert prune(NOW)
    assert left() == kept
    assert pruning.count(NOW) == {}


@pytest.mark.parametrize("state", [State.PENDING, State.STARTED, State.RETRY])
def test_what_has_not_ended_stays(state: State) -> None:
    kept = result(1000, state)
    TaskResult.objects.update(finished_at=None)
    other = result(1000, state)
    prune(NOW)
    assert left() == {kept, other}


def test_ages_of_the_settings(settings: Settings) -> None:
    kept = result(1000)
    gone = result(2, State.FAILURE)
    settings.JOBS = {**settings.JOBS, "RESULT_EXPIRES": {"SUCCESS": None, "FAILURE": DAY}}
    prune(NOW)
    assert left() == {kept} != {gone}


def test_a_task_may_have_an_age_of_its_own(own_age: Any) -> None:
    own_age("short", 60)
    own_age("forever", None)
    gone = [result(0.1, state, task="short") for state in (State.SUCCESS, State.FAILURE)]
    kept = {result(1000, task="forever"), result(0, task="short"), result(0.1)}
    assert pruning.count(NOW) == {"task short": 2}
    prune(NOW)
    assert left() == kept
    assert not kept & set(gone)


@pytest.mark.parametrize("foreign", ["zz-mine", str(uuid.UUID(int=2**127 + 5)), "0"])
def test_ids_of_other_senders(foreign: str) -> None:
    """They are in no order."""
    result(8, id=foreign)
    prune(NOW)
    assert left() == set()
    result(6, id=foreign)
    prune(NOW)
    assert left() == {foreign}


def test_one_that_was_sent_long_before_it_ended() -> None:
    kept = result(1, id=own_id(NOW - 300 * DAY))
    prune(NOW)
    assert left() == {kept}


def test_failed_attempts_go_with_it() -> None:
    for days in (8, 1):
        TaskAttempt.objects.create(
            result_id=result(days), number=1, worker="w", finished_at=NOW, error_type="E"
        )
    prune(NOW)
    assert set(TaskAttempt.objects.values_list("result_id", flat=True)) == left()
    assert len(left()) == 1


def runs(days: float, count: int) -> Schedule:
    schedule = Schedule.objects.create(name=f"{days}", task="a", interval=DAY)
    times = [NOW - days * DAY - n * dt.timedelta(minutes=1) for n in range(count)]
    ScheduleRun.objects.bulk_create(
        [ScheduleRun(schedule=schedule, due_at=at, at=at) for at in times]
    )
    return schedule


def test_old_runs_of_schedules_but_for_the_last(settings: Settings) -> None:
    old, new = runs(31, 25), runs(29, 25)
    assert pruning.count(NOW) == {"schedule runs": 5}
    prune(NOW)
    assert new.history.count() == 25
    assert old.history.count() == pruning.KEPT_RUNS
    assert old.history.latest("due_at").due_at == NOW - 31 * DAY
    settings.JOBS = {**settings.JOBS, "SCHEDULE_RUNS_EXPIRE": None}
    ScheduleRun.objects.update(at=NOW - 1000 * DAY)
    assert pruning.count(NOW) == {}


def test_many_in_small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 10)
    for _ in range(25):
        result(8)
    told: list[tuple[str, int]] = []
    assert prune(NOW, done=lambda what, count: told.append((what, count)))
    assert told == [("SUCCESS", 10), ("SUCCESS", 10), ("SUCCESS", 5)]
    assert left() == set()


def test_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 10)
    for _ in range(25):
        result(8)
    assert not prune(NOW, seconds=0)
    assert len(left()) == 15
    assert prune(NOW, seconds=60)
    assert left() == set()


@pytest.mark.postgres
def test_a_row_that_is_being_sent_again_stays() -> None:
    """An operator's transaction holds it at this moment."""
    held, gone = result(8), result(8)
    rows = TaskResult.objects.filter(pk=held)
    with transaction.atomic():
        rows.select_for_update().get()
        in_another_connection(lambda: prune(NOW))
        assert left() == {held} != {gone}
        rows.update(state=State.PENDING, finished_at=None)
    prune(NOW)
    assert left() == {held}


def in_another_connection(job: Any) -> None:
    def run() -> None:
        job()
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_nothing_to_do_takes_no_write_lock(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    result(1)
    # Two for each end, one for chords, one for runs; on PostgreSQL those that look for partitions.
    count = 8 + 2 * (connection.vendor == "postgresql") + 2 * partitions.read().parted
    with django_assert_num_queries(count) as asked:
        assert prune(NOW)
    assert {query["sql"].split()[0] for query in asked.captured_queries} == {"SELECT"}


class TestTask:
    def test_a_worker_runs_it(self, broker_url: str) -> None:
        now = dt.datetime.now(dt.UTC)
        for days in (8, 6):
            row = result(0)
            TaskResult.objects.filter(pk=row).update(
                finished_at=now - days * DAY, id=own_id(now - days * DAY)
            )
        sent = tasks.prune.delay()
        work()
        assert sent.get(timeout=10) == {"SUCCESS": 1}

    def test_the_rest_is_another_call(
        self, broker_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pruning, "_BATCH", 10)
        monkeypatch.setattr(tasks, "_SECONDS", 0.0)
        for _ in range(25):
            result(2000)
        tasks.prune.delay()
        work()
        calls = TaskResult.objects.filter(task="jobs.prune")
        gone: Counter[str] = Counter()
        for call in calls:
            assert call.state == State.SUCCESS
            gone.update(json.loads(call.result or "{}"))
        assert gone == {"SUCCESS": 25}
        assert len(calls) == 4  # the last finds nothing

    def test_beat_sends_it(self, settings: Settings) -> None:
        settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": {}}
        sync()
        schedule = Schedule.objects.get(name="jobs: prune results")
        assert (schedule.task, schedule.crontab) == ("jobs.prune", "17 3 * * *")
        assert schedule.enabled
        assert schedule.next_run_at is not None
