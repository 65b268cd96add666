"""`tick` on a real database and a real broker; time is an argument, nothing sleeps."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries, Settings

from jobs import (
    broker,
    message,
    registry,
)
from jobs.api.task import Task, task_of
from jobs.beat import run_id, tick, ticking
from jobs.models import Schedule, TaskResult
from jobs.states import State
from tests.integration.beats import (
    MINUTE,
    NOON,
    no_other_schedules,  # noqa: F401
    scheduled,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def noted() -> Iterator[Task[..., Any]]:
    """A task known to the registry, on queue ``high``."""

    def note(text: str, times: int = 1) -> None:
        raise AssertionError("beat must not run tasks")

    task = task_of(note, name="tests.beat.note", queue="high")
    yield task
    del registry.tasks[task.name]


class TestTick:
    def test_nothing_due_says_when_with_three_queries(
        self, broker_url: str, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        scheduled(due=NOON)
        with django_assert_num_queries(3):
            assert tick(NOON - MINUTE) == NOON
        assert not TaskResult.objects.exists()

    def test_without_schedules_there_is_no_next_time(self) -> None:
        assert tick(NOON) is None
        scheduled(due=NOON, enabled=False)
        assert tick(NOON) is None

    def test_a_due_schedule_is_sent_and_advances(
        self, broker_url: str, noted: Task[..., Any]
    ) -> None:
        schedule = scheduled("greet", task=noted.name, args=["hello"], kwargs={"times": 2})
        assert tick(NOON) == NOON + MINUTE

        row = TaskResult.objects.get()
        assert row.id == run_id(schedule.pk, NOON)
        assert (row.task, row.queue, row.state) == (noted.name, "high", State.PENDING)
        assert (row.args, row.kwargs) == ('["hello"]', '{"times":2}')
        assert row.published_at is not None
        sent = message.decode(bytes(row.message), "high")
        assert sent.headers["periodic_task_name"] == "greet"
        assert broker.get().stats("high").waiting == 1

        schedule.refresh_from_db()
        assert schedule.last_run_at == NOON
        assert schedule.next_run_at == NOON + MINUTE
        assert schedule.runs == 1

    def test_a_queue_of_its_own_wins_over_that_of_the_task(
        self, broker_url: str, noted: Task[..., Any]
    ) -> None:
        scheduled(task=noted.name, args=["x"], queue="low")
        tick(NOON)
        assert TaskResult.objects.get().queue == "low"
        assert broker.get().stats("low").waiting == 1

    def test_a_crontab_is_read_in_its_zone(self, broker_url: str) -> None:
        schedule = scheduled(crontab="30 6 * * *", timezone="Europe/Berlin")
        tick(NOON)
        schedule.refresh_from_db()
        assert schedule.next_run_at == dt.datetime(2026, 6, 2, 4, 30, tzinfo=dt.UTC)

    def test_missed_times_are_made_up_for_once(self, broker_url: str) -> None:
        schedule = scheduled(due=NOON)
        late = NOON + 10 * MINUTE + dt.timedelta(seconds=47)
        assert tick(late) == NOON + 11 * MINUTE
        schedule.refresh_from_db()
        assert (schedule.last_run_at, schedule.runs) == (NOON + 10 * MINUTE, 1)
        assert schedule.skipped == 10
        assert TaskResult.objects.count() == 1

    def test_ticking_again_sends_nothing(self, broker_url: str) -> None:
        scheduled()
        tick(NOON)
        tick(NOON)
        assert TaskResult.objects.count() == 1
        tick(NOON + MINUTE)
        assert TaskResult.objects.count() == 2

    def test_a_due_time_that_was_sent_is_passed_over(self, broker_url: str) -> None:
        schedule = scheduled()
        tick(NOON)
        # As after restoring a backup of this table.
        Schedule.objects.filter(pk=schedule.pk).update(next_run_at=NOON)
        assert tick(NOON) == NOON + MINUTE
        assert TaskResult.objects.count() == 1
        assert broker.get().stats("default").waiting == 1

    def test_more_than_fit_in_one_transaction(self, broker_url: str) -> None:
        many = [
            Schedule(
                name=str(n),
                task="tests.beat.unknown",
                interval=MINUTE,
                created_at=NOON,
                next_run_at=NOON,
            )
            for n in range(ticking._BATCH + 7)
        ]
        Schedule.objects.bulk_create(many)
        assert tick(NOON) == NOON + MINUTE
        assert broker.get().stats("default").waiting == len(many)
        assert not Schedule.objects.exclude(runs=1).exists()

    def test_rolled_back_leaves_nothing_done(self, broker_url: str) -> None:
        schedule = scheduled()
        with transaction.atomic():
            tick(NOON)
            transaction.set_rollback(True)
        schedule.refresh_from_db()
        assert (schedule.next_run_at, schedule.runs) == (NOON, 0)
        assert not TaskResult.objects.exists()
        assert broker.get().stats("default").waiting == 0


class TestTrouble:
    """One schedule's trouble is its own: the others are sent, and beat goes on."""

    @pytest.fixture(autouse=True)
    def _sound(self, broker_url: str) -> Iterator[None]:
        sound = scheduled("sound", task="tests.beat.sound")
        yield
        assert TaskResult.objects.get(task="tests.beat.sound").published_at is not None
        sound.refresh_from_db()
        assert sound.next_run_at == NOON + MINUTE

    @pytest.mark.parametrize(
        ("options", "left"),
        [
            ({"countdown": "soon"}, {}),
            ({"eta": 5, "time_limit": 60}, {}),
            ({"link": 5}, {}),
            ({"task_id": "mine", "queue": "low", "time_limit": 60}, {"timelimit": (60, None)}),
            ({"eta": "2030-01-01T00:00"}, {"eta": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}),
        ],
    )
    def test_options_that_no_call_takes_are_left_out(
        self,
        broker_url: str,
        noted: Task[..., Any],
        settings: Settings,
        options: dict[str, Any],
        left: dict[str, Any],
    ) -> None:
        """They keep neither a call from being sent nor the task's own options from applying."""
        settings.TIME_ZONE = "UTC"
        for name, task in (("known", noted.name), ("unknown", "tests.beat.unknown")):
            scheduled(name, due=NOON, task=task, args=["hi"], options=options)
        tick(NOON)
        runs = TaskResult.objects.exclude(task="tests.beat.sound")
        assert runs.count() == 2
        for row in runs:
            sent = message.decode(bytes(row.message), row.queue)
            found = {"timelimit": sent.timelimit, "eta": sent.eta}
            assert found == {"timelimit": (None, None), "eta": None} | left
            assert sent.queue == ("high" if sent.task == noted.name else "default")

    def test_an_unknown_task_is_for_the_worker_to_refuse(self) -> None:
        scheduled("ghost", task="no.such.task")
        tick(NOON)
        assert TaskResult.objects.get(task="no.such.task").published_at is not None

    def test_wrong_arguments_are_for_the_worker_to_refuse(self, noted: Task[..., Any]) -> None:
        for name, args in (("few", []), ("many", [1, 2, 3]), ("no list", {"text": "x"})):
            scheduled(name, task=noted.name, args=args)
        tick(NOON)
        sent = TaskResult.objects.filter(task=noted.name, queue="high")
        assert sent.exclude(published_at=None).count() == 3

    def test_an_undeclared_queue_is_recorded_as_a_failure(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        schedule = scheduled("lost", queue="hihg")
        tick(NOON)
        row = TaskResult.objects.get(id=run_id(schedule.pk, NOON))
        assert (row.state, row.error_type) == (State.FAILURE, "jobs.exceptions.UnknownQueue")
        assert "Did you mean 'high'?" in row.error
        assert "schedule 'lost'" in caplog.text
        schedule.refresh_from_db()
        assert schedule.next_run_at == NOON + MINUTE

    def test_too_large_a_message_is_recorded_as_a_failure(self, settings: Settings) -> None:
        settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 2048}
        schedule = scheduled("large", args=["x" * 3000])
        tick(NOON)
        row = TaskResult.objects.get(id=run_id(schedule.pk, NOON))
        assert (row.state, row.error_type) == (State.FAILURE, "jobs.exceptions.MessageTooLarge")

    def test_a_rule_that_can_not_be_read_stops_its_schedule_alone(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        schedule = scheduled("broken")
        Schedule.objects.filter(pk=schedule.pk).update(interval=None, crontab="whenever")
        tick(NOON)
        tick(NOON)
        schedule.refresh_from_db()
        assert (schedule.runs, schedule.next_run_at) == (0, None)
        assert caplog.text.count("schedule 'broken' has no next run") == 1

        schedule.crontab = "0 * * * *"
        schedule.save()
        assert schedule.next_run_at is not None

    def test_a_zone_that_is_gone_stops_its_schedule_after_what_is_due(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        schedule = scheduled("lost zone", crontab="0 12 * * *", timezone="Asia/Tokyo")

        def gone(self: Schedule, after: dt.datetime) -> None:
            if self.timezone == "Asia/Tokyo":
                raise ValidationError("no such zone.")
            return following(self, after)

        following = Schedule.following
        monkeypatch.setattr(Schedule, "following", gone)
        tick(NOON)
        schedule.refresh_from_db()
        assert (schedule.last_run_at, schedule.next_run_at) == (NOON, None)
        assert caplog.text.count("schedule 'lost zone' has no next run: no such zone.") == 1


def test_ids_are_uuids_of_version_7_at_the_due_time() -> None:
    first = run_id(1, NOON)
    assert first == run_id(1, NOON.astimezone(dt.timezone(dt.timedelta(hours=5))))
    assert len({first, run_id(2, NOON), run_id(1, NOON + MINUTE)}) == 3
    assert message.id_time(first) == NOON.timestamp()
    assert first[14] == "7"
    assert first[19] in "89ab"
    assert first < run_id(1, NOON + dt.timedelta(milliseconds=1))


@pytest.mark.parametrize("run", range(3))
def test_many_beats_at_once_send_each_due_time_once(broker_url: str, run: int) -> None:
    names = [f"s{n}" for n in range(40)]
    for name in names:
        scheduled(name)
    beats = 6
    together = threading.Barrier(beats)
    errors: list[Exception] = []

    def work() -> None:
        try:
            for step in range(5):
                together.wait(timeout=30)
                tick(NOON + step * MINUTE)
        except Exception as error:  # noqa: BLE001  raised again by the test's own thread
            errors.append(error)
            together.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(beats)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for error in errors:
        raise error
    tick(NOON + 4 * MINUTE)  # what was locked by a beat when the last one looked
    expected = {
        run_id(schedule.pk, NOON + step * MINUTE)
        for schedule in Schedule.objects.all()
        for step in range(5)
    }
    assert set(TaskResult.objects.values_list("id", flat=True)) == expected
    assert not Schedule.objects.exclude(runs=5).exists()
    assert broker.get().stats("default").waiting == len(expected)
