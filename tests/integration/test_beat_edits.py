"""Edited schedules: through `save`, past it, and past the models; and that beat hears of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from jobs import broker
from jobs.beat import tick
from jobs.beat import ticking as sweeping
from jobs.beat.process import Bell
from jobs.beat.sending import run_of
from jobs.beat.ticking import sweep
from jobs.broker.base import SCHEDULES
from jobs.models import Schedule, TaskResult
from tests import services
from tests.integration.beats import (
    MINUTE,
    NOON,
    SECOND,
    no_other_schedules,  # noqa: F401
    scheduled,
)

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = 60 * MINUTE


class TestSchedule:
    """What `save` does to beat's columns."""

    def test_an_edit_under_the_same_rule_leaves_a_due_run_due(self) -> None:
        schedule = scheduled(due=NOON)
        schedule.name = "renamed"
        schedule.save()
        schedule.refresh_from_db()
        assert (schedule.name, schedule.next_run_at) == ("renamed", NOON)

    def test_an_edit_does_not_undo_what_beat_wrote_meanwhile(self, broker_url: str) -> None:
        stale = scheduled(due=NOON)
        tick(NOON)
        stale.args = ["new"]
        stale.save()
        fresh = Schedule.objects.get()
        assert (fresh.args, fresh.runs, fresh.last_run_at) == (["new"], 1, NOON)
        assert fresh.next_run_at == NOON + MINUTE

    def test_a_new_rule_is_planned_from_now(self) -> None:
        schedule = scheduled(due=NOON)
        before = dt.datetime.now(dt.UTC)
        schedule.interval = None
        schedule.crontab = "0 0 1 1 *"
        schedule.save()
        schedule.refresh_from_db()
        assert schedule.next_run_at is not None
        assert schedule.next_run_at > before

    def test_disabling_and_enabling(self) -> None:
        schedule = scheduled(due=NOON)
        schedule.enabled = False
        schedule.save(update_fields=["enabled"])
        schedule.refresh_from_db()
        assert schedule.next_run_at is None
        before = dt.datetime.now(dt.UTC)
        Schedule.objects.update_or_create(name="s", defaults={"enabled": True})
        schedule.refresh_from_db()
        assert schedule.next_run_at is not None
        assert schedule.next_run_at > before

    def test_what_was_queued_is_forgotten_when_disabled(self) -> None:
        schedule = scheduled(queued_for=NOON)
        schedule.enabled = False
        schedule.save()
        assert Schedule.objects.get().queued_for is None
        Schedule.objects.update(queued_for=NOON)
        Schedule.objects.update(enabled=False)
        assert Schedule.objects.get().queued_for is None

    def test_a_rule_is_needed_and_only_one(self) -> None:
        for rule in ({}, {"crontab": "* * * * *", "interval": MINUTE}):
            with pytest.raises(ValidationError):
                Schedule(name="x", task="t", **rule).full_clean()


class TestClean:
    """What the admin's form shows beside its fields."""

    def problems(self, **fields: Any) -> set[str]:
        values = {"name": "x", "task": "t", "interval": MINUTE, **fields}
        with pytest.raises(ValidationError) as caught:
            Schedule(**values).full_clean()
        return set(caught.value.message_dict)

    def test_all_is_well(self) -> None:
        Schedule(name="x", task="t", interval=MINUTE, queue="high").full_clean()

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"interval": None, "crontab": "0 0 31 2 *"}, "crontab"),
            ({"timezone": "Mars/Olympus"}, "timezone"),
            ({"interval": dt.timedelta(0)}, "interval"),
            ({"interval": None, "at": NOON - 400 * 24 * HOUR}, "at"),
            ({"start_at": NOON, "end_at": NOON - SECOND}, "end_at"),
            ({"interval": HOUR, "start_at": NOON + SECOND, "end_at": NOON}, "end_at"),
            ({"end_at": NOON, "created_at": NOON + HOUR}, "end_at"),
            ({"queue": "hihg"}, "queue"),
            ({"args": {"a": 1}}, "args"),
            ({"kwargs": [1]}, "kwargs"),
            ({"headers": "x"}, "headers"),
            ({"jitter": -SECOND}, "jitter"),
            ({"priority": 10}, "priority"),
        ],
    )
    def test_what_can_not_be(self, fields: dict[str, Any], field: str) -> None:
        assert self.problems(**fields) == {field}

    def test_a_rule_that_has_ended_may_still_be_described(self) -> None:
        old = NOON - 400 * 24 * HOUR
        ended = scheduled("ended", end_at=old + HOUR, created_at=old)
        once = scheduled("once", interval=None, at=old, created_at=old - HOUR)
        for schedule in (ended, once):
            schedule.description = "It was the last one."
            schedule.full_clean()
        once.at = old + HOUR
        with pytest.raises(ValidationError):
            once.full_clean()


class TestPastSave:
    def test_rows_made_in_bulk_are_planned(self, broker_url: str) -> None:
        row = Schedule(name="fixture", task="t", crontab="0 13 * * *", timezone="UTC")
        Schedule.objects.bulk_create([row])
        assert tick(NOON) == NOON + HOUR
        assert Schedule.objects.get().planned_at == NOON

    def test_rows_that_bring_a_time_keep_it(self, broker_url: str) -> None:
        row = Schedule(name="fixture", task="t", interval=HOUR, next_run_at=NOON, created_at=NOON)
        Schedule.objects.bulk_create([row])
        sweep(NOON, 0)
        assert Schedule.objects.get().planned_for == row.digest()
        assert tick(NOON) == NOON + HOUR
        assert TaskResult.objects.count() == 1

    def test_an_updated_rule_is_planned_anew(self, broker_url: str) -> None:
        scheduled()
        Schedule.objects.update(interval=None, crontab="30 12 * * *", timezone="UTC")
        assert tick(NOON) == NOON + 30 * MINUTE
        assert not TaskResult.objects.exists()

    def test_so_is_one_updated_in_bulk(self, broker_url: str) -> None:
        schedule = scheduled()
        schedule.interval = HOUR
        Schedule.objects.bulk_update([schedule], ["interval"])
        assert tick(NOON) == NOON + HOUR

    def test_and_one_that_meets_another_of_its_name(self, broker_url: str) -> None:
        scheduled()
        again = Schedule(name="s", task="t", interval=HOUR, created_at=NOON)
        Schedule.objects.bulk_create(
            [again], update_conflicts=True, unique_fields=["name"], update_fields=["interval"]
        )
        assert tick(NOON) == NOON + HOUR

    def test_other_fields_leave_the_next_time_alone(self, broker_url: str) -> None:
        scheduled()
        Schedule.objects.update(args=[1], misfire="skip")
        assert Schedule.objects.get().next_run_at == NOON

    def test_a_next_time_that_is_given_counts(self, broker_url: str) -> None:
        scheduled()
        Schedule.objects.update(interval=HOUR, next_run_at=NOON + SECOND)
        assert tick(NOON) == NOON + SECOND

    def test_disabled_and_enabled_again_nothing_was_missed(self, broker_url: str) -> None:
        scheduled()
        Schedule.objects.update(enabled=False)
        assert tick(NOON + HOUR) is None
        Schedule.objects.update(enabled=True)
        assert tick(NOON + HOUR) == NOON + HOUR + MINUTE
        assert not TaskResult.objects.exists()


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


class TestPastTheModels:
    """Statements that know nothing of beat's columns."""

    def test_the_sweep_finds_another_rule(self, broker_url: str) -> None:
        scheduled()
        execute("UPDATE jobs_schedule SET crontab = '30 12 * * *', interval = NULL")
        sweep(NOON, 0)
        fresh = Schedule.objects.get()
        assert fresh.next_run_at == fresh.following(NOON)
        tick(NOON)
        assert not TaskResult.objects.exists()

    def test_so_does_the_due_time_itself(self, broker_url: str) -> None:
        scheduled()
        execute("UPDATE jobs_schedule SET crontab = '30 12 * * *', interval = NULL")
        assert tick(NOON) == Schedule.objects.get().following(NOON)
        assert not TaskResult.objects.exists()

    def test_a_schedule_that_was_switched_off_and_on(self, broker_url: str) -> None:
        scheduled(queued_for=NOON)
        execute("UPDATE jobs_schedule SET enabled = NOT enabled")
        sweep(NOON, 0)
        fresh = Schedule.objects.get()
        assert (fresh.next_run_at, fresh.queued_for) == (None, None)
        execute("UPDATE jobs_schedule SET enabled = NOT enabled")
        sweep(NOON + HOUR, 0)
        assert Schedule.objects.get().next_run_at == NOON + HOUR + MINUTE

    def test_a_clock_that_was_ahead(self, broker_url: str) -> None:
        scheduled(crontab="0 * * * *", timezone="UTC")
        tick(NOON)
        ahead = NOON + 1000 * 24 * HOUR
        assert tick(ahead) == ahead + HOUR
        assert TaskResult.objects.count() == 3  # the newest of those missed, and the one of then
        sweep(NOON + MINUTE, 0)
        assert tick(NOON + MINUTE) == NOON + HOUR
        tick(NOON + HOUR)
        assert TaskResult.objects.count() == 4

    def test_a_clock_that_went_back_sends_nothing_twice(self, broker_url: str) -> None:
        scheduled()
        for minute in (0, 1, 2):
            tick(NOON + minute * MINUTE)
        sweep(NOON - HOUR, 0)
        assert tick(NOON - HOUR) == NOON - 59 * MINUTE
        Schedule.objects.update(next_run_at=NOON)
        tick(NOON + 2 * MINUTE)
        schedule = Schedule.objects.get()
        assert (TaskResult.objects.count(), schedule.runs) == (3, 3)
        assert schedule.next_run_at == NOON + 3 * MINUTE

    def test_a_few_rows_at_a_time(self, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sweeping, "_SWEPT", 2)
        pks = sorted(scheduled(str(n)).pk for n in range(3))
        execute("UPDATE jobs_schedule SET timezone = 'Asia/Tokyo'")
        assert sweep(NOON, 0) == pks[1]
        assert Schedule.objects.filter(next_run_at=NOON).count() == 1
        assert sweep(NOON, pks[1]) == 0
        assert not Schedule.objects.filter(next_run_at=NOON).exists()


class TestHearing:
    @pytest.mark.parametrize("how", ["save", "create", "update", "bulk", "bulk_update", "delete"])
    def test_an_edit_is_told_at_the_commit(self, broker_url: str, how: str) -> None:
        schedule = scheduled()
        new = Schedule(name="new", task="t", interval=HOUR)
        schedule.interval = HOUR
        edits = {
            "save": schedule.save,
            "create": new.save,
            "update": lambda: Schedule.objects.update(enabled=False),
            "bulk": lambda: Schedule.objects.bulk_create([new]),
            "bulk_update": lambda: Schedule.objects.bulk_update([schedule], ["interval"]),
            "delete": schedule.delete,
        }
        with broker.get().subscribe(SCHEDULES) as heard:
            with transaction.atomic():
                edits[how]()
                assert not heard(0.01)
            assert heard(10)
            assert not heard(0)

    def test_many_edits_of_a_transaction_are_told_once(self, broker_url: str) -> None:
        with broker.get().subscribe(SCHEDULES) as heard:
            with transaction.atomic():
                for n in range(5):
                    scheduled(str(n))
            assert heard(10)
            assert not heard(0)

    def test_what_is_rolled_back_is_not_told(self, broker_url: str) -> None:
        with broker.get().subscribe(SCHEDULES) as heard:
            with transaction.atomic():
                scheduled()
                transaction.set_rollback(True)
            with transaction.atomic(), transaction.atomic():
                scheduled()
                transaction.set_rollback(True)
            assert not heard(0.01)

    def test_beat_itself_wakes_nobody(self, broker_url: str) -> None:
        scheduled()
        with broker.get().subscribe(SCHEDULES) as heard:
            tick(NOON)
            assert not heard(0.01)

    def test_an_edit_ends_the_pause(self, broker_url: str) -> None:
        bell = Bell()
        try:
            bell.wait(0)
            scheduled()
            bell.wait(300)  # the test's own time limit would end it
        finally:
            bell.close()

    def test_without_redis_an_edit_is_saved_and_beat_pauses_all_the_same(
        self, own_valkey: services.Valkey, caplog: pytest.LogCaptureFixture
    ) -> None:
        bell = Bell()
        bell.wait(0)
        own_valkey.kill()
        try:
            scheduled()
            assert Schedule.objects.count() == 1
            for _ in range(3):
                bell._again_at = 0.0
                bell.wait(0.001)
            assert caplog.text.count("sees edited schedules only when it looks") == 1
            own_valkey.start()
            bell._again_at = 0.0
            bell.wait(0)
            Schedule.objects.update(enabled=False)
            bell.wait(300)
        finally:
            bell.close()


def test_what_was_there_before_expires_from_its_due_time() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate([("jobs", "0005_task_groups")])
    try:
        old = executor.loader.project_state([("jobs", "0005_task_groups")]).apps
        rows = old.get_model("jobs", "Schedule").objects
        rows.create(name="old", task="tests.tasks.add", interval=MINUTE, expires=2 * MINUTE)
        rows.create(name="plain", task="tests.tasks.add", interval=MINUTE)
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes("jobs"))
    old, plain = Schedule.objects.filter(name__in=["old", "plain"]).order_by("name")
    assert (old.expires_from, plain.expires_from) == ("due", "sent")
    assert run_of(old, NOON).expires == NOON + 2 * MINUTE
    new = scheduled("new", expires=2 * MINUTE)
    expires = run_of(new, NOON).expires
    assert expires is not None
    assert abs(expires - 2 * MINUTE - dt.datetime.now(dt.UTC)) < MINUTE
