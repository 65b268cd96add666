"""What running tasks note is thinned before it is sent."""

from __future__ import annotations

from jobs.broker.base import About
from jobs.running.notes import (
    Key,
    Thinned,
    Value,
)

ONE: Key = ("mail", "id-1", About.PROGRESS)
TWO: Key = ("mail", "id-2", About.PROGRESS)


def text(value: bytes) -> Value:
    return lambda: value


def taken(notes: Thinned, now: float) -> dict[Key, bytes | None]:
    return {key: value and value() for key, value in notes.take(now)}


def test_the_first_goes_at_once_and_the_next_after_a_while() -> None:
    notes = Thinned(every=0.2)
    notes.put(ONE, text(b"1"))
    assert notes.pause(100.0) == 0
    assert taken(notes, 100.0) == {ONE: b"1"}
    assert 0.14 < notes.pause(100.05) < 0.16
    assert notes.pause(100.2) == 0


def test_of_a_burst_the_newest_of_each_is_sent() -> None:
    notes = Thinned(every=0.2)
    for n in range(1000):
        notes.put(ONE, text(b"%d" % n))
    notes.put(TWO, text(b"other"))
    assert taken(notes, 100.0) == {ONE: b"999", TWO: b"other"}
    assert taken(notes, 100.2) == {}


def test_a_thousand_a_second_are_sent_five_times() -> None:
    notes, sent = Thinned(every=0.2), []
    for n in range(1000):
        now = 100.0 + n / 1000
        notes.put(ONE, text(b"%d" % n))
        if notes.pause(now) == 0:
            sent += taken(notes, now).values()
    assert len(sent) == 5
    assert taken(notes, 101.0) == {ONE: b"999"}  # the last one is not lost


def test_what_could_not_be_sent_gives_way_to_what_is_newer() -> None:
    notes = Thinned(every=0.2)
    notes.put(ONE, text(b"old"))
    notes.put(TWO, text(b"old"))
    tried = notes.take(100.0)
    notes.put(ONE, None)
    notes.put_back(tried)
    assert taken(notes, 101.0) == {ONE: None, TWO: b"old"}
