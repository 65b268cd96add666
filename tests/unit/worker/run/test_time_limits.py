"""Soft limits: raised in the task that has had its time, and in nothing that follows it."""

from __future__ import annotations

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.api.task import Task
from jobs.exceptions import SoftTimeLimitExceeded
from jobs.message import Message
from jobs.worker.run.time_limits import (
    Limits,
    MainThreadTimer,
    ThreadTimer,
    Timer,
)
from tests.services import wait_for


@pytest.fixture(params=[MainThreadTimer, ThreadTimer])
def timer(request: pytest.FixtureRequest) -> Timer:
    made: Timer = request.param()
    return made


def spin(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


def test_it_is_raised_in_the_task(timer: Timer) -> None:
    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded), timer.limit(0.05):
        spin(20)
    assert 0.05 <= time.monotonic() - began < 5


def test_one_in_time_is_left_alone(timer: Timer) -> None:
    # Longer than a busy machine keeps a process waiting.
    for _ in range(50):
        with timer.limit(0.5):
            pass
    spin(0.6)


def test_none_is_no_limit(timer: Timer) -> None:
    with timer.limit(0.5):
        pass
    with timer.limit(None):
        spin(0.6)


def test_one_that_ends_just_then(timer: Timer) -> None:
    """Whether it counts as too late or not: what comes after it is not disturbed."""
    late = 0
    for n in range(200):
        try:
            with timer.limit(0.001 + n / 1e6):
                spin(0.001 + n / 1e6)
        except SoftTimeLimitExceeded:
            late += 1
        spin(0.0005)
    assert late <= 200


def test_it_can_be_caught_and_comes_once(timer: Timer) -> None:
    caught = 0
    with timer.limit(0.02):
        for _ in range(3):
            try:
                spin(0.05)
            except SoftTimeLimitExceeded:
                caught += 1
    assert caught == 1


def test_each_thread_has_its_own() -> None:
    timer = ThreadTimer()

    def task(limit: float, takes: float) -> str:
        try:
            with timer.limit(limit):
                spin(takes)
        except SoftTimeLimitExceeded:
            return "late"
        return "in time"

    limits, takes = [0.05, 20, 0.1, 20], [20, 0.3, 20, 0.3]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(task, limits, takes)) == ["late", "in time", "late", "in time"]


def test_an_exception_on_its_way_takes_no_lock_along() -> None:
    """The task ends while the watcher is about to raise: others have their limits after that."""
    timer = ThreadTimer()
    entered, leave = threading.Event(), threading.Event()
    seen: list[str] = []

    def task() -> None:
        try:
            with timer.limit(60):
                entered.set()
                leave.wait(20)
        except SoftTimeLimitExceeded:
            seen.append("late")

    thread = threading.Thread(target=task)
    thread.start()
    entered.wait(20)
    assert thread.ident is not None
    with timer._changed:
        leave.set()
        thread.join(20)  # to its end, if it needs no lock for that
        timer._ends.pop(thread.ident, None)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SoftTimeLimitExceeded)
        )
    thread.join(20)
    assert not thread.is_alive()
    wait_for(lambda: timer._changed.acquire(blocking=False), 5, what="the lock")
    timer._changed.release()
    assert timer._ends == {}


def test_whose_limit_counts() -> None:
    limits = Limits(ThreadTimer(), soft=1, hard=2)
    sent = Message(task="t", id="1", queue="default")
    plain, own = Task(spin, name="t"), Task(spin, name="t", soft_time_limit=3, time_limit=4)
    assert (limits.soft(sent, plain), limits.hard(sent, plain)) == (1, 2)
    assert (limits.soft(sent, own), limits.hard(sent, own)) == (3, 4)
    sent.timelimit = (6, 5)
    assert (limits.soft(sent, own), limits.hard(sent, own)) == (5, 6)
    none = Limits(ThreadTimer())
    assert none.soft(Message(task="t", id="1", queue="default"), plain) is None
