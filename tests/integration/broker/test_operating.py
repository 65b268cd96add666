"""The contract of every broker: what operators take away, and what they look at."""

from __future__ import annotations

import datetime as dt
import time

from jobs.broker.base import (
    COMMANDS_MOST,
    GONE_MOST,
    Broker,
    Outgoing,
    Pause,
    Returned,
    Revoked,
    Waiting,
)
from tests.integration.broker.helpers import LEASE, claim, expire, numbered, push, waiting
from tests.services import wait_for

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
    assert found == [Waiting(raw, priority, at) for _, raw, priority, at, *_ in reversed(due)]


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
    assert broker.held_by([("mail", "w1", [2, 7, 1])]) == [b"b", None, b"a"]
    assert broker.held_by([("mail", "w1", [])]) == []


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


def test_when_workers_have_reported(broker: Broker) -> None:
    assert broker.report_ages("mail") == {}
    broker.report("mail", "one", b"busy")
    broker.report("mail", "two", b"busy")
    broker.report("mail", "two", None)
    (name, age), *others = broker.report_ages("mail").items()
    assert (name, others) == ("one", [])
    assert 0 <= age < 30
    nobody, mail = broker.report_ages_of(["post", "mail"])
    assert (nobody, list(mail)) == ({}, ["one"])


def test_which_workers_have_been_silent_for_longest(broker: Broker) -> None:
    for name in ("one", "two", "three"):
        broker.report("mail", name, b"busy")
        # The next report must come later, by the milliseconds of the broker's clock.
        wait_for(lambda name=name: broker.report_ages("mail")[name] >= 0.002, what="time to pass")
    assert list(broker.report_ages("mail", 2)) == ["one", "two"]
    broker.report("mail", "one", b"busy")
    assert list(broker.report_ages("mail", 1)) == ["two"]
    assert set(broker.report_ages("mail", 9)) == {"one", "two", "three"}


def test_the_end_of_a_worker_is_noted_by_one(broker: Broker) -> None:
    broker.report("mail", "one", b"busy")
    assert broker.note_gone("mail", b"a child crashed") is True
    assert broker.note_gone("mail", b"lost", "one") is True
    assert broker.note_gone("mail", b"lost", "one") is False
    assert broker.gone_of(["mail"]) == [[b"lost", b"a child crashed"]]
    assert broker.gone_of(["post", "mail"]) == [[], [b"lost", b"a child crashed"]]
    assert (broker.reports("mail"), broker.report_ages("mail")) == ({}, {})


def test_no_more_ends_are_kept_than_that(broker: Broker) -> None:
    for n in range(GONE_MOST + 5):
        broker.note_gone("mail", b"%d" % n)
    assert broker.gone_of(["mail"]) == [[b"%d" % n for n in range(GONE_MOST + 4, 4, -1)]]


def test_commands_are_taken_once_and_in_order(broker: Broker) -> None:
    assert broker.take_commands("mail", "one") == []
    for n in range(COMMANDS_MOST + 2):
        broker.command("mail", "one", b"%d" % n, 60)
    broker.command("mail", "two", b"other", 60)
    assert broker.take_commands("mail", "one") == [b"%d" % n for n in range(2, COMMANDS_MOST + 2)]
    assert broker.take_commands("mail", "one") == []
    assert broker.take_commands("mail", "two") == [b"other"]


def test_answers_to_commands(broker: Broker) -> None:
    assert broker.answered("mail", "c1") is None
    broker.answer("mail", "c1", b"first", 60)
    broker.answer("mail", "c1", b"second", 60)
    broker.answer("mail", "c2", b"other", 60)
    assert broker.answered("mail", "c1") == b"second"
    broker.answer("mail", "c1", b"gone", 0.001)
    wait_for(lambda: broker.answered("mail", "c1") is None)
