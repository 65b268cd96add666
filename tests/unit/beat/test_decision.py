"""What becomes of due times, by each policy. Pure: rows that were never saved, and no clock."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from jobs.beat.decision import Decision, decide
from jobs.beat.sending import run_id, start_of
from jobs.models import Misfire, Overlap, Schedule

NOON = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)


def schedule(**fields: Any) -> Schedule:
    """Due at noon, and each minute after that."""
    values = {"name": "s", "task": "t", "created_at": NOON, "next_run_at": NOON, **fields}
    if not values.get("crontab") and not values.get("at"):
        values.setdefault("interval", MINUTE)
    return Schedule(pk=7, **values)


def decided(one: Schedule, late: dt.timedelta, *, busy: bool = False, most: int = 1000) -> Decision:
    return decide(one, NOON + late, busy=busy, grace=30 * SECOND, most=most)


def minutes(*values: int) -> list[dt.datetime]:
    return [NOON + value * MINUTE for value in values]


class TestInTime:
    @pytest.mark.parametrize("late", [dt.timedelta(0), SECOND, 30 * SECOND])
    @pytest.mark.parametrize("misfire", Misfire)
    def test_a_due_time_is_sent(self, late: dt.timedelta, misfire: Misfire) -> None:
        decision = decided(schedule(misfire=misfire), late)
        assert (decision.send, decision.missed) == ([NOON], 0)
        assert decision.next_run_at == NOON + MINUTE

    @pytest.mark.parametrize("misfire", Misfire)
    def test_each_of_those_that_are_only_late_is_sent(self, misfire: Misfire) -> None:
        decision = decided(schedule(interval=SECOND, misfire=misfire), 29.5 * SECOND)
        assert decision.send == [NOON + n * SECOND for n in range(30)]
        assert (decision.missed, decision.next_run_at) == (0, NOON + 30 * SECOND)

    def test_no_more_than_asked_for(self) -> None:
        decision = decided(schedule(interval=SECOND), 20 * SECOND, most=5)
        assert len(decision.send) == 5
        assert decision.next_run_at == NOON + 5 * SECOND

    def test_one_moment_is_due_once(self) -> None:
        decision = decided(schedule(at=NOON), SECOND)
        assert (decision.send, decision.next_run_at) == ([NOON], None)

    def test_the_end(self) -> None:
        decision = decided(schedule(end_at=NOON + 30 * SECOND), SECOND)
        assert (decision.send, decision.next_run_at) == ([NOON], None)


class TestMissed:
    """Ten minutes and a second: eleven due times, of which the last one is only late."""

    LATE = 10 * MINUTE + SECOND

    def test_skipped(self) -> None:
        decision = decided(schedule(misfire=Misfire.SKIP), self.LATE)
        assert (decision.send, decision.missed) == (minutes(10), 10)
        assert decision.next_run_at == NOON + 11 * MINUTE

    def test_the_newest_is_sent_once(self) -> None:
        decision = decided(schedule(misfire=Misfire.ONCE), self.LATE)
        assert (decision.send, decision.missed) == (minutes(9, 10), 9)
        assert decision.next_run_at == NOON + 11 * MINUTE

    def test_all_are_sent(self) -> None:
        decision = decided(schedule(misfire=Misfire.ALL), self.LATE)
        assert (decision.send, decision.missed) == (minutes(*range(11)), 0)

    def test_all_within_the_window_are_sent(self) -> None:
        late = schedule(misfire=Misfire.ALL, misfire_window=3 * MINUTE)
        decision = decided(late, self.LATE)
        assert (decision.send, decision.missed) == (minutes(8, 9, 10), 8)

    def test_all_in_several_goes(self) -> None:
        one = schedule(misfire=Misfire.ALL)
        sent: list[dt.datetime] = []
        for _ in range(3):
            decision = decided(one, self.LATE, most=4)
            sent += decision.send
            one.next_run_at = decision.next_run_at
        assert sent == minutes(*range(11))
        assert one.next_run_at == NOON + 11 * MINUTE

    @pytest.mark.parametrize("misfire", Misfire)
    @pytest.mark.parametrize("rule", [{"interval": SECOND}, {"crontab": "* * * * * *"}])
    def test_a_clock_that_jumps_a_year_sends_no_flood(
        self, misfire: Misfire, rule: dict[str, Any]
    ) -> None:
        one = schedule(misfire=misfire, misfire_window=MINUTE, **rule)
        decision = decided(one, dt.timedelta(days=365))
        assert len(decision.send) <= 61
        assert decision.missed >= 1000
        assert decision.next_run_at == NOON + dt.timedelta(days=365) + SECOND

    def test_one_moment(self) -> None:
        assert decided(schedule(at=NOON, misfire=Misfire.SKIP), HOUR).missed == 1
        assert decided(schedule(at=NOON, misfire=Misfire.ONCE), HOUR).send == [NOON]
        assert decided(schedule(at=NOON, misfire=Misfire.ALL), HOUR).send == [NOON]

    def test_a_clock_that_went_back_makes_nothing_due(self) -> None:
        decision = decided(schedule(), -HOUR)
        assert (decision.send, decision.next_run_at) == ([], NOON)

    @pytest.mark.parametrize("misfire", Misfire)
    def test_a_pause_is_no_miss(self, misfire: Misfire) -> None:
        one = schedule(misfire=misfire, paused_until=NOON + 3 * HOUR)
        one.next_run_at = one.following(NOON)
        assert one.next_run_at == NOON + 3 * HOUR
        decision = decided(one, 3 * HOUR + SECOND)
        assert (decision.send, decision.missed) == ([NOON + 3 * HOUR], 0)


class TestOverlap:
    def test_allowed(self) -> None:
        assert decided(schedule(overlap=Overlap.ALLOW), SECOND, busy=True).send == [NOON]

    def test_skipped(self) -> None:
        decision = decided(schedule(overlap=Overlap.SKIP), SECOND, busy=True)
        assert (decision.send, decision.overlapped) == ([], [NOON])
        assert decision.next_run_at == NOON + MINUTE

    def test_queued(self) -> None:
        decision = decided(schedule(overlap=Overlap.QUEUE), SECOND, busy=True)
        assert (decision.send, decision.overlapped) == ([], [])
        assert decision.queued_for == NOON

    def test_only_one_is_queued(self) -> None:
        one = schedule(overlap=Overlap.QUEUE, queued_for=NOON - MINUTE)
        decision = decided(one, SECOND, busy=True)
        assert (decision.queued_for, decision.overlapped) == (NOON - MINUTE, [NOON])

    def test_what_is_queued_comes_first(self) -> None:
        one = schedule(overlap=Overlap.QUEUE, queued_for=NOON - MINUTE)
        decision = decided(one, SECOND)
        assert (decision.send, decision.queued_for) == ([NOON - MINUTE], NOON)

    def test_what_is_queued_is_sent_between_due_times(self) -> None:
        one = schedule(overlap=Overlap.QUEUE, queued_for=NOON - MINUTE)
        decision = decided(one, -SECOND)
        assert (decision.send, decision.queued_for) == ([NOON - MINUTE], None)
        assert decision.next_run_at == NOON

    @pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
    def test_of_several_due_times_the_first_is_what_the_others_overlap(
        self, overlap: Overlap
    ) -> None:
        one = schedule(interval=10 * SECOND, overlap=overlap)
        decision = decided(one, 20 * SECOND)
        later = [NOON + 10 * SECOND, NOON + 20 * SECOND]
        assert decision.send == [NOON]
        if overlap is Overlap.SKIP:
            assert (decision.overlapped, decision.queued_for) == (later, None)
        else:
            assert (decision.overlapped, decision.queued_for) == (later[1:], later[0])


class TestJitter:
    def test_is_drawn_alike_by_everybody(self) -> None:
        spread = [
            start_of(schedule(jitter=MINUTE), NOON + n * HOUR) - NOON - n * HOUR for n in range(200)
        ]
        again = start_of(schedule(jitter=MINUTE), NOON)
        assert again - NOON == spread[0]
        assert min(spread) >= dt.timedelta(0)
        assert max(spread) < MINUTE
        assert min(spread) < 10 * SECOND
        assert max(spread) > 50 * SECOND

    def test_schedules_of_one_due_time_are_spread(self) -> None:
        starts = {start_of(Schedule(pk=pk, jitter=MINUTE), NOON) for pk in range(50)}
        assert len(starts) == 50

    def test_none(self) -> None:
        assert start_of(schedule(), NOON) == NOON
        assert run_id(7, NOON) == run_id(7, NOON)
