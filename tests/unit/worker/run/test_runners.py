"""How much a child claims, from how long its tasks took."""

from __future__ import annotations

import threading

import pytest

from jobs import task
from jobs.message import Message
from jobs.worker.board import Board
from jobs.worker.record.outcome import Delivery
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


@pytest.mark.parametrize(
    ("average", "patience"), [(0.0001, 0.002), (0.005, 0.015), (0.04, AHEAD), (5.0, AHEAD)]
)
def test_what_waits_goes_back_sooner_while_the_queues_are_empty(
    monkeypatch: pytest.MonkeyPatch, average: float, patience: float
) -> None:
    now = 100.0
    monkeypatch.setattr("jobs.worker.run.runners.time.monotonic", lambda: now)
    runners = SyncRunners("w", Board.make(1), Limits(ThreadTimer()), Recorder("w"))
    runners.pace._average = average
    for drained, longest in ((False, AHEAD), (True, patience)):
        runners.drained = drained
        runners._started = {1: now - longest * 0.9}
        assert not runners.overrun()
        runners._started = {1: now - longest * 1.1}
        assert runners.overrun()


class Counted(threading.Event):
    """Nobody waits for it; it counts how often it is set."""

    sets = 0

    def set(self) -> None:
        self.sets += 1

    def is_set(self) -> bool:
        return False


@pytest.mark.parametrize(("drained", "sets"), [(False, 4), (True, 1)])
def test_a_runner_asks_early_only_where_there_may_be_more(drained: bool, sets: int) -> None:
    """After each of three calls and when it is idle; or then alone."""
    recorder = Recorder("w")
    recorder.freed = freed = Counted()
    runners = SyncRunners("w", Board.make(1), Limits(ThreadTimer()), recorder)
    runners.drained, runners.pace._average = drained, 0.0001

    @task(name="tests.quick", ignore_result=True)
    def quick(number: int) -> None:
        if number == 2:
            runners.stop()  # after the last one

    ended = []
    runners.done = ended.append
    for number in range(3):
        sent = Message(task=quick.name, id=str(number), queue="default", args=[number])
        runners.submit([Delivery("default", number, b"", sent, quick)])
    runners.run()
    assert len(ended) == 3
    assert freed.sets == sets
