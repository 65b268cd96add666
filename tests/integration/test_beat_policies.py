"""Misfire, overlap, jitter and the rest, with real rows. The decisions are tested alone in
`tests/unit/beat/test_decision.py`."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
import time_machine

from jobs import broker, message
from jobs.beat import Beat, run_id, tick
from jobs.beat.sending import start_of
from jobs.models import Misfire, Overlap, Schedule, ScheduleRun, TaskResult
from jobs.states import State
from tests.integration.beats import (
    MINUTE,
    NOON,
    SECOND,
    no_other_schedules,  # noqa: F401
    scheduled,
)

pytestmark = pytest.mark.django_db(transaction=True)

Outcome = ScheduleRun.Outcome


def history() -> list[tuple[dt.datetime, str]]:
    return [(run.due_at, run.outcome) for run in ScheduleRun.objects.order_by("due_at")]


def end(state: State = State.SUCCESS) -> None:
    TaskResult.objects.filter(state=State.PENDING).update(state=state)


def fresh() -> Schedule:
    return Schedule.objects.get()


class TestHistory:
    def test_each_run_is_noted(self, broker_url: str) -> None:
        schedule = scheduled()
        tick(NOON + SECOND)
        run = ScheduleRun.objects.get()
        assert (run.due_at, run.at, run.outcome) == (NOON, NOON + SECOND, Outcome.SENT)
        assert run.result == run_id(schedule.pk, NOON) == fresh().last_result

    def test_a_run_that_the_history_knows_is_not_sent(self, broker_url: str) -> None:
        schedule = scheduled()
        ScheduleRun.objects.create(schedule=schedule, due_at=NOON, at=NOON, outcome=Outcome.SKIPPED)
        assert tick(NOON) == NOON + MINUTE
        assert not TaskResult.objects.exists()
        assert history() == [(NOON, Outcome.SKIPPED)]


class TestMissed:
    @pytest.mark.parametrize(
        ("misfire", "sent", "skipped"), [("skip", 0, 5), ("once", 1, 4), ("all", 5, 0)]
    )
    def test_after_downtime(self, broker_url: str, misfire: str, sent: int, skipped: int) -> None:
        scheduled(misfire=misfire)
        late = NOON + 4 * MINUTE + 40 * SECOND
        assert tick(late) == NOON + 5 * MINUTE
        assert (fresh().runs, fresh().skipped) == (sent, skipped)
        assert broker.get().stats("default").waiting == sent
        assert tick(late) == NOON + 5 * MINUTE

    def test_more_than_fit_into_one_transaction(
        self, broker_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jobs.beat.ticking._MESSAGES", 4)
        scheduled("a", misfire=Misfire.ALL)
        scheduled("b", misfire=Misfire.ALL)
        tick(NOON + 10 * MINUTE)
        assert set(Schedule.objects.values_list("runs", flat=True)) == {11}

    def test_a_flood_lets_beat_stop_in_between(
        self, broker_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jobs.beat.ticking._MESSAGES", 1)
        monkeypatch.setattr("jobs.beat.ticking._STEPS", 3)
        scheduled(misfire=Misfire.ALL)
        assert tick(NOON + 10 * MINUTE) == NOON + 3 * MINUTE


class TestOverlap:
    def test_skipped_while_the_last_run_goes_on(self, broker_url: str) -> None:
        scheduled(overlap=Overlap.SKIP)
        for minute in (0, 1, 2):
            tick(NOON + minute * MINUTE)
        assert (fresh().runs, fresh().skipped) == (1, 2)
        end(State.FAILURE)
        tick(NOON + 3 * MINUTE)
        assert [outcome for _, outcome in history()] == ["sent", "overlapped", "overlapped", "sent"]

    def test_a_result_that_is_gone_has_ended(self, broker_url: str) -> None:
        scheduled(overlap=Overlap.SKIP)
        tick(NOON)
        TaskResult.objects.all().delete()
        tick(NOON + MINUTE)
        assert fresh().runs == 2

    def test_queued_until_the_last_run_ends(self, broker_url: str) -> None:
        schedule = scheduled(overlap=Overlap.QUEUE)
        for minute in (0, 1, 2):
            tick(NOON + minute * MINUTE)
        assert (fresh().runs, fresh().queued_for) == (1, NOON + MINUTE)
        assert history() == [(NOON, "sent"), (NOON + 2 * MINUTE, "overlapped")]
        end()
        now = NOON + 2 * MINUTE + SECOND
        assert tick(now) == NOON + 3 * MINUTE
        assert (fresh().runs, fresh().queued_for) == (2, None)
        run = ScheduleRun.objects.get(due_at=NOON + MINUTE)
        assert (run.at, run.result) == (now, run_id(schedule.pk, NOON + MINUTE))
        assert tick(now) == NOON + 3 * MINUTE
        assert fresh().runs == 2

    def test_what_waits_is_not_sent_in_a_pause(self, broker_url: str) -> None:
        waits = {"overlap": Overlap.QUEUE, "queued_for": NOON - MINUTE}
        scheduled(due=NOON + 2 * MINUTE, paused_until=NOON + MINUTE, **waits)
        tick(NOON)
        assert not ScheduleRun.objects.exists()
        tick(NOON + MINUTE)
        assert history() == [(NOON - MINUTE, "sent")]

    def test_one_whose_turn_comes_as_the_next_is_due(self, broker_url: str) -> None:
        scheduled(overlap=Overlap.QUEUE)
        tick(NOON)
        tick(NOON + MINUTE)
        end()
        tick(NOON + 2 * MINUTE)
        assert (fresh().runs, fresh().last_run_at) == (2, NOON + MINUTE)
        assert fresh().queued_for == NOON + 2 * MINUTE


class TestWhatIsSent:
    def sent(self) -> message.Message:
        row = TaskResult.objects.get()
        return message.decode(bytes(row.message), row.queue)

    def test_priority_headers_and_expiry(self, broker_url: str) -> None:
        scheduled(priority=9, headers={"tenant": "acme"}, expires=10 * MINUTE, expires_from="due")
        tick(NOON + SECOND)
        sent = self.sent()
        assert (sent.priority, sent.expires) == (9, NOON + 10 * MINUTE)
        assert sent.headers == {"tenant": "acme", "periodic_task_name": "s"}

    def test_exchange_and_routing_key_go_along_with_a_queue(self, broker_url: str) -> None:
        scheduled(queue="default", exchange="media", routing_key="mail.new")
        tick(NOON)
        info = json.loads(bytes(TaskResult.objects.get().message))["properties"]["delivery_info"]
        assert info == {"exchange": "media", "routing_key": "mail.new"}

    def test_expiry_counts_from_the_sending(self, broker_url: str) -> None:
        """As Celery's does: what is made up for late has its full time."""
        scheduled(expires=10 * MINUTE)
        before = dt.datetime.now(dt.UTC)
        tick(NOON + SECOND)
        expires = self.sent().expires
        assert expires is not None
        assert before + 10 * MINUTE <= expires <= dt.datetime.now(dt.UTC) + 10 * MINUTE

    @pytest.mark.parametrize("start", ["sent", "due"])
    def test_jitter_moves_the_start_and_not_the_expiry(self, broker_url: str, start: str) -> None:
        soon = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=1)
        schedule = scheduled(due=soon, jitter=30 * MINUTE, expires=40 * MINUTE, expires_from=start)
        tick(soon)
        sent = self.sent()
        assert sent.eta == start_of(schedule, soon) > soon
        assert sent.expires is not None
        counted = soon if start == "due" else dt.datetime.now(dt.UTC)
        assert abs(sent.expires - counted - 40 * MINUTE) < MINUTE
        assert broker.get().stats("default").due == 1

    def test_headers_that_are_none_are_left_out(self, broker_url: str) -> None:
        scheduled(headers=[1])
        tick(NOON)
        assert self.sent().headers == {"periodic_task_name": "s"}


class TestPauseAndEnd:
    def test_nothing_is_missed_in_a_pause(self, broker_url: str) -> None:
        schedule = scheduled()
        schedule.paused_until = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
        schedule.save()
        paused = fresh()
        assert paused.next_run_at is not None
        assert paused.paused_until is not None
        assert dt.timedelta(0) <= paused.next_run_at - paused.paused_until < MINUTE
        tick(paused.next_run_at)
        assert (fresh().runs, fresh().skipped) == (1, 0)

    def test_one_moment_comes_once(self, broker_url: str) -> None:
        scheduled(interval=None, at=NOON)
        assert tick(NOON) is None
        assert tick(NOON + MINUTE) is None
        assert fresh().runs == 1

    def test_after_the_end_nothing_is_asked_for_again(self, broker_url: str) -> None:
        scheduled(end_at=NOON + 10 * SECOND)
        assert tick(NOON) is None
        assert not Schedule.objects.unplanned().exists()


class TestSkipNext:
    def test_the_next_due_time_passes(self, broker_url: str) -> None:
        schedule = scheduled()
        assert schedule.skip_next(NOON - SECOND) == NOON
        assert schedule.next_run_at == NOON + MINUTE
        assert history() == [(NOON, Outcome.SKIPPED)]
        assert tick(NOON) == NOON + MINUTE
        assert not TaskResult.objects.exists()

    def test_twice(self, broker_url: str) -> None:
        schedule = scheduled()
        schedule.skip_next(NOON - SECOND)
        assert schedule.skip_next(NOON - SECOND) == NOON + MINUTE
        assert fresh().next_runs(NOON - SECOND, 2) == [NOON + 2 * MINUTE, NOON + 3 * MINUTE]

    def test_there_is_none(self, broker_url: str) -> None:
        assert scheduled(enabled=False, due=None).skip_next(NOON) is None


class TestTravel:
    """The process itself, on a clock that the test moves."""

    @pytest.fixture
    def process(self) -> Any:
        process = Beat()
        yield process
        process._bell.close()

    def test_two_nights(self, broker_url: str, process: Beat) -> None:
        scheduled(crontab="30 2 * * *", timezone="Europe/Berlin", due=None)
        with time_machine.travel(NOON, tick=False) as clock:
            Schedule.objects.update(timezone="Europe/Berlin")  # planned anew, from then on
            for _ in range(74):
                process.step()
                clock.shift(dt.timedelta(minutes=30))
            process.step()
        due = [due for due, _ in history()]
        assert due == [dt.datetime(2026, 6, day, 0, 30, tzinfo=dt.UTC) for day in (2, 3)]

    def test_a_jump_ahead_and_back(self, broker_url: str, process: Beat) -> None:
        with time_machine.travel(NOON, tick=False) as clock:
            scheduled(due=NOON)
            process.step()
            clock.shift(dt.timedelta(days=700))
            process.step()
            assert fresh().runs <= 3
            clock.move_to(NOON + MINUTE)
            process._sweep_at = 0.0
            process.step()
            process.step()
            assert fresh().next_run_at == NOON + 2 * MINUTE
        assert len(set(history())) == len(history()) == TaskResult.objects.count()
