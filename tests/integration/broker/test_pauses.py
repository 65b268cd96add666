"""The contract of every broker: queues and tasks of which nothing is handed out."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from jobs.broker.base import (
    PARKED,
    Broker,
    Outgoing,
    Parking,
    Pause,
    Returned,
)
from tests.integration.broker.helpers import LEASE, claim, numbered, push
from tests.services import wait_for

AT = dt.datetime(2026, 3, 1, 2, 3, 4, tzinfo=dt.UTC)
WHOLE = Pause("", "ada", "the shop moves — tonight", AT)
TASK = Pause("shop.x", "bob", "", AT)


def test_what_is_paused_is_told_with_who_and_why(broker: Broker) -> None:
    assert broker.paused("mail") == []
    broker.pause("mail", TASK)
    broker.pause("mail", WHOLE)
    assert broker.paused("mail") == [WHOLE, TASK]
    broker.pause("mail", WHOLE._replace(by="eve"))
    assert broker.paused("mail") == [WHOLE._replace(by="eve"), TASK]
    assert broker.paused("other") == []


def test_a_paused_queue_hands_nothing_out(broker: Broker) -> None:
    push(broker, b"waits")
    broker.push([Outgoing("mail", b"due", 0, time.time() - 1)])
    push(broker, b"elsewhere", queue="other")
    broker.pause("mail", WHOLE)
    nothing = broker.claim("mail", "w1", 1, 10, LEASE)
    assert (nothing.messages, nothing.next_due, nothing.resume) == ([], None, None)
    assert broker.claim("other", "w1", 1, 10, LEASE).messages == [(1, b"elsewhere")]
    stats = broker.stats("mail")
    assert (stats.waiting, stats.in_flight, stats.due) == (1, 0, 1)
    assert broker.resume("mail") is True
    assert claim(broker) == [b"waits", b"due"]
    assert broker.resume("mail") is False


def test_what_was_in_flight_ends_as_usual(broker: Broker) -> None:
    push(broker, *numbered(4))
    claim(broker, 3)
    broker.pause("mail", WHOLE)
    assert claim(broker, 3) == numbered(3)  # the answer was lost
    assert broker.ack("mail", "w1", [1]) == 1
    assert broker.retry("mail", "w1", 2, b"again", 0, time.time() - 1)
    assert broker.reclaim("mail", "w1", lambda number, raw: Returned(number)) == 1
    assert claim(broker, by="w2") == []
    broker.resume("mail")
    assert claim(broker, by="w2") == [b"message 2", b"message 3", b"again"]


def test_a_paused_queue_keeps_nobody_awake(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> None:
    """A consumer that was woken by what came finds nothing, and sleeps until the queue resumes."""
    broker.pause("mail", WHOLE)
    push(broker, *numbered(100))
    assert claim(broker) == []
    waiter = threads.submit(broker.wait_and_claim, "mail", "w1", 1, 10, LEASE, 20)
    wait_for(lambda: asleep() == 1)
    broker.resume("mail")
    assert waiter.result(timeout=10).messages == list(enumerate(numbered(10), 1))


def test_resuming_wakes_for_what_is_due_later(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> None:
    broker.pause("mail", WHOLE)
    broker.push([Outgoing("mail", b"due", 0, time.time() + 600)])
    assert broker.claim("mail", "w1", 1, 1, LEASE).next_due is None
    waiter = threads.submit(broker.wait_and_claim, "mail", "w1", 1, 10, LEASE, 20)
    wait_for(lambda: asleep() == 1)
    broker.resume("mail")
    told = waiter.result(timeout=10).next_due
    assert told is not None
    assert 500 < told < 601


def test_messages_of_a_paused_task_are_parked(broker: Broker) -> None:
    push(broker, *numbered(4))
    assert broker.claim("mail", "w1", 1, 1, LEASE).paused_tasks is False
    broker.pause("mail", TASK)
    assert broker.claim("mail", "w1", 2, 3, LEASE).paused_tasks is True
    asked = [Parking(1, 4, "shop.x"), Parking(2, 0, "shop.y"), Parking(3, 9, "shop.x")]
    assert broker.park("mail", "w1", [*asked, Parking(9, 0, "shop.x")]) == {1, 3}
    stats = broker.stats("mail")
    assert (stats.waiting, stats.in_flight, stats.due) == (0, 2, 2)
    assert {(m.raw, m.priority) for m in broker.browse("mail", due=True)} == {
        (b"message 0", 4),
        (b"message 2", 9),
    }
    assert all((m.due or 0) > PARKED for m in broker.browse("mail", due=True))
    assert claim(broker, first=5) == []


def test_a_task_that_is_resumed_comes_back_at_once(broker: Broker) -> None:
    push(broker, *numbered(3))
    broker.push([Outgoing("mail", b"later", 0, time.time() + 600)])
    broker.pause("mail", TASK)
    claim(broker)
    broker.park("mail", "w1", [Parking(n, 0, "shop.x") for n in (1, 2)])
    # The queue's own pause is another matter.
    assert broker.resume("mail") is False
    assert claim(broker, first=4) == []
    assert broker.resume("mail", "shop.x") is True
    assert broker.claim("mail", "w2", 1, 10, LEASE).messages == [
        (1, b"message 0"),
        (2, b"message 1"),
    ]
    assert [m.raw for m in broker.browse("mail", due=True)] == [b"later"]
    assert broker.paused("mail") == []


def test_a_task_resumed_meanwhile_is_not_parked(broker: Broker) -> None:
    """Else nobody would ever resume it again."""
    push(broker, b"a")
    broker.pause("mail", TASK)
    assert broker.claim("mail", "w1", 1, 1, LEASE).paused_tasks is True
    broker.resume("mail", "shop.x")
    assert broker.park("mail", "w1", [Parking(1, 0, "shop.x")]) == set()
    assert broker.held("mail", "w1", [1]) == {1}


def test_many_parked_messages_come_back(broker: Broker) -> None:
    push(broker, *numbered(450))
    broker.pause("mail", TASK)
    claim(broker, 450)
    broker.park("mail", "w1", [Parking(n, 0, "shop.x") for n in range(1, 451)])
    assert broker.stats("mail").due == 450
    broker.resume("mail", "shop.x")
    assert sorted(claim(broker, 450, by="w2")) == sorted(numbered(450))


def test_said_again_a_resumption_that_was_interrupted_is_finished(broker: Broker) -> None:
    broker.push([Outgoing("mail", b"parked", 0, PARKED + 5)])
    assert claim(broker) == []
    assert broker.resume("mail", "shop.x") is False
    assert claim(broker) == [b"parked"]
