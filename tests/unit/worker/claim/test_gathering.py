"""Calls wait for others of their task; `now` is monotonic seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobs import message
from jobs.api.task import Task
from jobs.message import Message
from jobs.worker.claim.holding import Gathering
from jobs.worker.record.outcome import Delivery, each

ONE = Task(lambda requests: None, name="one", batch=3, batch_wait=0.5)
TWO = Task(lambda requests: None, name="two", batch=5, batch_wait=2.0)
PLAIN = Task(lambda: None, name="plain")
_numbers: Iterator[int] = iter(range(1, 1000))


def call(task: Task[..., Any], **fields: Any) -> Delivery:
    sent = Message(task=task.name, id=message.new_id(), queue="default", **fields)
    return Delivery("default", next(_numbers), b"", sent, task)


def numbers(deliveries: list[Delivery]) -> list[list[int]]:
    return [[one.number for one in each([delivery])] for delivery in deliveries]


@pytest.fixture
def gathering() -> Gathering:
    return Gathering(1000)


def test_what_is_no_batch_goes_on_at_once(gathering: Gathering) -> None:
    plain = call(PLAIN)
    assert gathering.add([plain], 100.0) == [plain]
    assert not gathering


def test_a_full_batch_goes_on_as_one_delivery_in_order(gathering: Gathering) -> None:
    calls = [call(ONE) for _ in range(7)]
    ready = gathering.add(calls, 100.0)
    assert numbers(ready) == [[c.number for c in calls[:3]], [c.number for c in calls[3:6]]]
    assert gathering
    assert gathering.missing() == 2


def test_the_first_call_waits_no_longer_than_it_should(gathering: Gathering) -> None:
    first, second = call(ONE), call(ONE)
    assert gathering.add([first], 100.0) == []
    assert gathering.add([second], 100.4) == []
    assert gathering.wait(100.4) == pytest.approx(0.1)
    assert gathering.due(100.4) == []
    assert numbers(gathering.due(100.5)) == [[first.number, second.number]]
    assert not gathering
    assert gathering.due(200.0) == []


def test_each_task_has_its_own(gathering: Gathering) -> None:
    one, two = call(ONE), call(TWO)
    gathering.add([one, two], 100.0)
    assert gathering.missing() == 4
    assert numbers(gathering.due(101.0)) == [[one.number]]
    assert gathering.wait(101.0) == pytest.approx(1.0)
    assert numbers(gathering.take_back()) == [[two.number]]
    assert not gathering


def test_one_whose_process_died_is_run_by_itself(gathering: Gathering) -> None:
    calls = [call(ONE), call(ONE, crashes=1), call(ONE)]
    assert numbers(gathering.add(calls, 100.0)) == [[calls[1].number]]
    assert numbers(gathering.due(101.0)) == [[calls[0].number, calls[2].number]]


def test_a_batch_is_no_larger_than_the_board() -> None:
    calls = [call(TWO) for _ in range(4)]
    assert [len(one) for one in numbers(Gathering(2).add(calls, 100.0))] == [2, 2]
