"""The contract of every broker: pages of what a queue holds. Looking changes nothing."""

from __future__ import annotations

from jobs.broker.base import PARKED, About, Broker, InFlight, Note, Outgoing, Waiting
from jobs.broker.limiting import Slot
from tests.integration.broker.helpers import claim, dead, expire, numbered, push, waiting


def test_pages_of_what_waits(broker: Broker) -> None:
    push(broker, *numbered(7), priority=4)
    push(broker, b"first", b"second")
    every = [Waiting(b"first", 0), Waiting(b"second", 0)]
    every += [Waiting(raw, 3) for raw in numbered(7)]
    for start in range(11):
        for count in (1, 3, 20):
            assert broker.peek("mail", start, count) == every[start : start + count]
    assert broker.peek("empty", 0, 5) == []
    assert broker.peek("mail", 10**16, 5) == []
    assert waiting(broker) == [found.raw for found in every]


def test_pages_of_what_is_due(broker: Broker) -> None:
    times = [4e9, 4e9 + 1.5, 4e9 + 1.5, 4e9 + 1.5, 4e9 + 1.501]
    broker.push([Outgoing("mail", b"%d" % n, n, at) for n, at in enumerate(times)])
    every = [Waiting(b"%d" % n, n, at) for n, at in enumerate(times)]
    assert broker.peek_due("mail", 9) == every
    assert broker.peek_due("mail", 2) == every[:2]
    assert broker.peek_due("mail", 9, 4e9 + 1.5) == every[1:]
    assert broker.peek_due("mail", 2, 4e9 + 1.5, 1) == every[2:4]
    assert broker.peek_due("mail", 9, 4e9 + 1.5, 3) == every[4:]
    assert broker.peek_due("mail", 9, 4e9 + 1.5, 9) == []
    assert broker.peek_due("mail", 9, PARKED) == []
    assert broker.peek_due("empty", 9) == []
    assert broker.stats("mail").due == 5


def test_pages_of_what_is_in_flight(broker: Broker) -> None:
    push(broker, *numbered(15))
    claim(broker, 11, by="b")
    claim(broker, 3, by="a", first=9)
    held = [InFlight("a", 9 + n, b"message %d" % (11 + n)) for n in range(3)]
    held += [InFlight("b", 1 + n, b"message %d" % n) for n in range(11)]
    for start in range(16):
        for count in (1, 4, 20):
            found = broker.peek_in_flight("mail", start, count)
            assert found == held[start : start + count]
    expire(broker, "a")  # what it holds is in flight until it is reclaimed
    assert broker.peek_in_flight("mail", 0, 20) == held
    assert broker.peek_in_flight("empty", 0, 20) == []


def test_deliveries_of_several_consumers(broker: Broker) -> None:
    push(broker, b"x", b"y")
    claim(broker, 1, by="a")
    claim(broker, 1, by="b")
    asked = [
        ("mail", name, [number]) for name, number in (("b", 1), ("nobody", 1), ("a", 1), ("a", 2))
    ]
    assert broker.held_by(asked) == [b"y", None, b"x", None]
    assert broker.held_by([]) == []


def test_notes_of_several_tasks(broker: Broker) -> None:
    broker.note("mail", [Note("one", About.PROGRESS, b"1"), Note("two", About.POSITION, b"2")], 60)
    assert broker.noted_of("mail", ["two", "one"], About.PROGRESS) == [None, b"1"]
    assert broker.noted_of("mail", [], About.PROGRESS) == []


def test_dead_letters_of_several_queues(broker: Broker) -> None:
    dead(broker, [b"a", b"b", b"c"])
    broker.bury("post", b"d", "why", "w")
    found = broker.dead_letters_of({"mail": None, "post": None, "empty": None}, 2)
    raws = {queue: [letter.raw for letter in letters] for queue, letters in found.items()}
    assert raws == {"mail": [b"c", b"b"], "post": [b"d"], "empty": []}
    before = {"mail": found["mail"][-1].key, "post": found["post"][-1].key}
    older = broker.dead_letters_of(before, 2)
    assert [letter.raw for letter in older["mail"]] == [b"a"]
    assert older["post"] == []


def test_slots_that_are_in_use(broker: Broker) -> None:
    broker.take_slots([Slot("imports", 2, holder) for holder in ("a", "b", "c")])
    broker.take_slots([Slot("exports", 5, "a")])
    assert broker.slots_in_use(["exports", "imports", "none"]) == [1, 2, 0]
    broker.free_slots([Slot("imports", 2, "a")])
    assert broker.slots_in_use(["imports"]) == [1]
    assert broker.slots_in_use([]) == []
