"""The process of beat: outages, pauses, what it does besides."""

from __future__ import annotations

import datetime as dt
import logging
import threading

import pytest
from django.db import DatabaseError, connection, transaction
from pytest_django import Settings

from jobs import broker, message
from jobs.beat import Beat
from jobs.ledger import publish
from jobs.models import Schedule, TaskResult
from tests import services
from tests.integration.beats import no_other_schedules, scheduled  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


class TestOutage:
    def test_redis_away_leaves_the_messages_to_the_relay(
        self,
        own_valkey: services.Valkey,
        settings: Settings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, "jobs")
        settings.JOBS = {
            **settings.JOBS,
            "RELAY_AFTER_SECONDS": 0,
            "RETRY_POLICY": {"max_retries": 0},
        }
        now = dt.datetime.now(dt.UTC)
        schedule = scheduled(due=now, created_at=now)
        process = Beat()
        own_valkey.kill()
        for _ in range(3):
            process._upkeep_at = 0.0
            process.step()
        schedule.refresh_from_db()
        assert schedule.runs == 1
        assert TaskResult.objects.get().published_at is None
        assert caplog.text.count("could not publish what was left behind") == 1

        own_valkey.start()
        process._upkeep_at = 0.0
        process.step()
        assert TaskResult.objects.get().published_at is not None
        assert broker.get().stats("default").waiting == 1
        assert caplog.text.count("can publish what was left behind again") == 1

    @pytest.mark.postgres
    def test_the_database_away_is_logged_once_and_got_over(
        self, broker_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "jobs")
        now = dt.datetime.now(dt.UTC)
        scheduled(due=now, created_at=now)
        process = Beat()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE jobs_schedule RENAME TO jobs_schedule_away")
        try:
            pauses = [process.step() for _ in range(8)]
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE jobs_schedule_away RENAME TO jobs_schedule")
        assert pauses[0] < 1
        assert pauses[-1] >= process.retry_seconds / 2
        assert caplog.text.count("could not send what is due") == 1
        process.step()
        assert caplog.text.count("can send what is due again") == 1
        assert TaskResult.objects.count() == 1

    @pytest.mark.postgres
    def test_a_connection_that_was_cut_is_replaced(self, broker_url: str) -> None:
        now = dt.datetime.now(dt.UTC)
        scheduled(due=now, created_at=now)
        process = Beat()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
        finally:
            other.close()
        process.step()
        process.step()
        assert TaskResult.objects.count() == 1


class TestBeat:
    def test_pauses_until_the_next_due_time_but_never_long(self, broker_url: str) -> None:
        process = Beat()
        process.look_seconds = 300.0
        assert process.step() == process.look_seconds
        scheduled(due=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=200))
        assert 100 < process.step() <= 200
        Schedule.objects.update(next_run_at=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
        assert process.step() == process.look_seconds

    def test_what_is_to_be_prepared_is_done_once_it_can_be(
        self, broker_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        tries: list[int] = []

        def prepare() -> None:
            tries.append(1)
            if len(tries) < 2:
                raise DatabaseError("not yet")

        process = Beat(prepare=prepare)
        for _ in range(4):
            process._upkeep_at = 0.0
            process.step()
        assert len(tries) == 2
        assert caplog.text.count("could not synchronise schedules") == 1

    def test_stop_ends_a_run_that_pauses(self, broker_url: str) -> None:
        process = Beat()
        process.look_seconds = 300.0
        running = threading.Thread(target=lambda: (process.run(), connection.close()))
        running.start()
        process.stop()
        running.join(timeout=20)
        assert not running.is_alive()

    def test_publishes_what_another_process_left_behind(
        self, broker_url: str, settings: Settings
    ) -> None:
        settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0}
        with transaction.atomic():
            publish.send([message.Message(task="t", id=message.new_id(), queue="default")])
            connection.run_on_commit.clear()  # as if killed right after the commit
        Beat().step()
        assert broker.get().stats("default").waiting == 1
