"""How much a child claims, from how long its tasks took."""

from __future__ import annotations

import pytest

from jobs.worker.board import Board
from jobs.worker.record.recorder import Recorder
from jobs.worker.run.executor import Limits, ThreadTimer
from jobs.worker.run.runners import (
    AHEAD,
    MOST,
    Pace,
    SyncRunners,
)


def pace_after(*runtimes: float) -> Pace:
    pace = Pace()
    for runtime in runtimes:
        pace.note(runtime)
    return pace


def test_nothing_is_claimed_ahead_before_it_is_known_how_long_tasks_take() -> None:
    assert Pace().target == 1


@pytest.mark.parametrize(("runtime", "target"), [(0.01, 5), (0.001, 50), (1.0, 1), (1e-7, MOST)])
def test_steady_tasks(runtime: float, target: int) -> None:
    assert pace_after(*[runtime] * 200).target == pytest.approx(target, rel=0.05, abs=1)


def test_it_slows_down_faster_than_it_speeds_up() -> None:
    short = pace_after(*[0.001] * 200)
    assert short.target >= 45
    short.note(10.0)
    assert short.target == 1
    short.note(0.001)
    assert short.target == 1
    # One long task is forgotten after some dozens of short ones.
    assert pace_after(*[0.001] * 200, 10.0, *[0.001] * 100).target >= 20


def test_a_clock_that_stands_still() -> None:
    assert pace_after(*[0.0] * 500).target == MOST


def test_a_runner_is_overrun_when_all_are_busy_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("jobs.worker.run.runners.time.monotonic", lambda: now)
    board = Board.make(1)
    limits = Limits(ThreadTimer())
    runners = SyncRunners("w", board, limits, Recorder("w"))
    assert not runners.overrun()
    runners._started = {1: now - AHEAD * 2}
    assert runners.overrun()
    runners._started = {1: now - AHEAD / 2}
    assert not runners.overrun()
    runners._threads = [None, None]  # type: ignore[list-item]
    runners._started = {1: now - 10}
    assert not runners.overrun()  # one of two is free
    runners._started = {1: now - 10, 2: now - AHEAD / 2}
    assert not runners.overrun()  # one of two has just begun
    runners._started = {1: now - 10, 2: now - AHEAD * 2}
    assert runners.overrun()
