"""What ran in a process that died is run with nothing beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import task
from jobs.api.task import Task
from jobs.message import Message
from jobs.worker.board import Board
from jobs.worker.claim.holding import Suspects
from jobs.worker.record.outcome import Delivery, Outcome
from jobs.worker.run.executor import Limits, ThreadTimer
from jobs.worker.run.runners import AsyncRunner, SyncRunners
from tests.services import wait_for

PLACES = 6


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.make(PLACES)
    yield board
    board.close()


class House:
    """A child's runners and its suspects; tasks in it wait until they are let go."""

    def __init__(self, board: Board, threads: int) -> None:
        self.started: list[int] = []
        self.go = threading.Semaphore(0)
        self.done: list[Outcome] = []
        limits = Limits(ThreadTimer())
        self.sync = SyncRunners("w", board, limits, self.done.append, lambda: None)
        self.loop = AsyncRunner("w", 2, board, limits, self.done.append, self.sync.freed)
        self.loop.wanted = False
        if threads > 1:
            self.sync.start(threads)
        self.suspects = Suspects(self.sync, self.loop)

        @task(name="tests.waits", ignore_result=True)
        def waits(number: int) -> None:
            self.started.append(number)
            assert self.go.acquire(timeout=20)

        @task(name="tests.awaits", ignore_result=True)
        async def awaits(number: int) -> None:
            self.started.append(number)
            assert await asyncio.to_thread(self.go.acquire, timeout=20)

        self._task: Task[..., None] = waits
        self._async_task: Task[..., Any] = awaits

    def async_delivery(self, number: int) -> Delivery:
        return self.delivery(number, 1)._replace(task=self._async_task)

    def delivery(self, number: int, crashes: int) -> Delivery:
        sent = Message(
            task="tests.waits", id=str(number), queue="default", args=[number], crashes=crashes
        )
        return Delivery("default", number, b"", sent, self._task)

    def end(self) -> None:
        for _ in range(PLACES):
            self.go.release()
        self.sync.stop()
        self.sync.join()
        self.loop.stop()


@pytest.fixture
def house(board: Board) -> Iterator[House]:
    house = House(board, threads=3)
    yield house
    house.end()


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [d.number for d in deliveries]


def test_one_after_the_other_and_nothing_beside(house: House) -> None:
    mixed = [house.delivery(1, 0), house.delivery(2, 1), house.delivery(3, 2)]
    assert numbers(house.suspects.hold(mixed)) == [1]
    assert house.suspects.busy
    house.sync.submit(mixed[:1])
    wait_for(lambda: house.started == [1], what="the innocent one")
    house.suspects.step()
    assert not house.sync.unstarted  # 1 still runs
    house.go.release()
    wait_for(lambda: len(house.done) == 1 and not house.sync.busy, what="its end")
    for nth, number in enumerate((2, 3), 2):
        house.suspects.step()
        wait_for(lambda number=number: house.started[-1] == number, what=f"suspect {number}")
        house.suspects.step()  # and again: the next must wait
        assert house.suspects.busy
        assert not house.sync.unstarted
        house.go.release()
        wait_for(lambda nth=nth: len(house.done) == nth and not house.sync.busy, what="its end")
    wait_for(lambda: not house.suspects.busy, what="the last to be counted")
    assert house.started == [1, 2, 3]


def test_one_on_the_event_loop_is_alone_too(house: House) -> None:
    house.suspects.hold([house.async_delivery(1)])
    house.suspects.step()
    wait_for(lambda: house.started == [1], what="it")
    assert house.suspects.busy
    house.go.release()
    wait_for(lambda: not house.suspects.busy, what="its end")


def test_what_waits_goes_back_when_the_worker_stops(house: House) -> None:
    house.suspects.hold([house.delivery(n, 1) for n in (1, 2)])
    assert numbers(house.suspects.take_back()) == [1, 2]
    assert not house.suspects.busy


def test_where_one_at_a_time_is_run_nobody_waits(board: Board) -> None:
    house = House(board, threads=1)
    assert numbers(house.suspects.hold([house.delivery(1, 1)])) == [1]
    assert not house.suspects.busy
