"""The contract of every broker: what operators take away, and what they look at."""

from __future__ import annotations

import datetime as dt
import time

from jobs.broker.base import (
    Broker,
    Outgoing,
    Pause,
    Returned,
    Revoked,
    Waiting,
)
from tests.integration.broker.helpers import LEASE, claim, expire, numbered, push, waiting

PAUSE = Pause("", "ada", "", dt.datetime(2026, 3, 1, tzinfo=dt.UTC))


def test_what_waits_is_browsed_in_the_order_of_claims(broker: Broker) -> None:
    push(broker, *numbered(450), priority=4)
    push(broker, b"first", b"second")
    found = list(broker.browse("mail", due=False))
    assert found == [Waiting(raw, 0) for raw in (b"first", b"second")] + [
        Waiting(raw, 3) for raw in numbered(450)
    ]
    assert broker.stats("mail").waiting == 452
    assert list(broker.browse("mail", due=True)) == []


def test_what_is_due_is_browsed_the_next_first(broker: Broker) -> None:
    due = [Outgoing("mail", b"%d" % n, n % 10, 4e9 - n) for n in range(250)]
    broker.push(due)
    found = list(broker.browse("mail", due=True))
    assert found == [Waiting(raw, priority, at) for _, raw, priority, at in reversed(due)]


def test_what_is_taken_is_leased(broker: Broker) -> None:
    push(broker, b"last", priority=9)
    push(broker, *numbered(3))
    broker.pause("mail", PAUSE)
    assert broker.take("mail", "op", 1, 2, LEASE) == [
        Waiting(b"message 0", 0),
        Waiting(b"message 1", 0),
    ]
    assert broker.take("mail", "op", 3, 10, LEASE) == [
        Waiting(b"message 2", 0),
        Waiting(b"last", 9),
    ]
    assert broker.take("mail", "op", 5, 10, LEASE) == []
    assert broker.held("mail", "op", range(1, 6)) == {1, 2, 3, 4}
    ((name, lease, held),) = broker.consumers("mail")
    assert (name, held) == ("op", 4)
    assert LEASE - 30 < lease <= LEASE
    assert broker.ack("mail", "op", [1, 2]) == 2
    expire(broker, "op")
    assert broker.expired("mail") == ["op"]
    broker.reclaim("mail", "op", lambda number, raw: Returned(number))
    broker.resume("mail")
    assert waiting(broker) == [b"message 2", b"last"]


def test_one_is_picked(broker: Broker) -> None:
    push(broker, *numbered(3), priority=4)
    assert broker.pick("mail", "op", 1, LEASE, Waiting(b"message 1", 3)) is True
    assert broker.pick("mail", "op", 2, LEASE, Waiting(b"message 1", 3)) is False
    assert broker.pick("mail", "op", 2, LEASE, Waiting(b"message 0", 0)) is False
    assert broker.held("mail", "op", [1, 2]) == {1}
    assert waiting(broker) == [b"message 0", b"message 2"]


def test_what_is_due_is_withdrawn(broker: Broker) -> None:
    broker.push([Outgoing("mail", raw, 4, 4e9) for raw in numbered(3)])
    asked = [Waiting(b"message 0", 4, 4e9), Waiting(b"message 1", 3, 4e9)]
    assert broker.withdraw("mail", asked) == 1
    assert broker.withdraw("mail", []) == 0
    assert [m.raw for m in broker.browse("mail", due=True)] == [b"message 1", b"message 2"]


def test_messages_that_a_consumer_holds(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker)
    assert broker.holding("mail", "w1", [2, 7, 1]) == [b"b", None, b"a"]
    assert broker.holding("mail", "w1", []) == []


def test_what_is_revoked(broker: Broker) -> None:
    broker.revoke("mail", "short", 60, terminate=False)
    broker.revoke("mail", "long", 600, terminate=True)
    broker.revoke("mail", "past", -1, terminate=False)
    first, second = broker.revocations("mail", 10)
    assert (first.id, first.terminate, second.id, second.terminate) == (
        "long",
        True,
        "short",
        False,
    )
    assert abs(first.until - time.time() - 600) < 30
    assert [found.id for found in broker.revocations("mail", 1)] == ["long"]
    assert isinstance(first, Revoked)


def test_what_workers_say_of_themselves(broker: Broker) -> None:
    assert broker.reports("mail") == {}
    broker.report("mail", "one", b"busy")
    broker.report("mail", "two", b"idle")
    broker.report("mail", "one", b"idle")
    assert broker.reports("mail") == {"one": b"idle", "two": b"idle"}
    broker.report("mail", "one", None)
    broker.report("mail", "three", None)
    assert broker.reports("mail") == {"two": b"idle"}
    assert broker.reports_of(["post", "mail"]) == [{}, {"two": b"idle"}]
