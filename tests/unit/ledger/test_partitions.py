"""Which partitions there are to be. What becomes of rows is for the tests of integration."""

from __future__ import annotations

import datetime as dt

import pytest

from jobs.ledger.partitions import (
    Ledger,
    Partition,
    first_id,
    is_short,
    next_start,
    planned,
    time_of,
    to_make,
)
from jobs.message import new_id

NOW = dt.datetime(2026, 2, 27, 15, 30, tzinfo=dt.UTC)  # a Friday


def at(month: int, day: int) -> dt.datetime:
    return dt.datetime(2026, month, day, tzinfo=dt.UTC)


def names(found: list[Partition]) -> list[str]:
    return [one.name.removeprefix("jobs_taskresult_") for one in found]


@pytest.mark.parametrize(
    ("every", "starts"), [("day", at(2, 28)), ("week", at(3, 2)), ("month", at(3, 1))]
)
def test_where_the_next_one_begins(every: str, starts: dt.datetime) -> None:
    assert next_start(NOW, every) == starts
    assert next_start(starts - dt.timedelta(microseconds=1), every) == starts
    assert next_start(starts, every) > starts
    assert next_start(NOW.astimezone(dt.timezone(dt.timedelta(hours=14))), every) == starts


def test_each_begins_where_the_one_before_ends() -> None:
    found = list(planned(at(2, 26), at(3, 20), "week"))
    assert names(found) == ["w20260226", "w20260302", "w20260309", "w20260316"]
    assert [one.end for one in found[:-1]] == [one.start for one in found[1:]]
    assert [one.every for one in found] == ["week"] * 4


def test_an_id_and_its_time() -> None:
    assert first_id(NOW) <= first_id(NOW + dt.timedelta(milliseconds=1))
    assert time_of(first_id(NOW)) == NOW
    assert first_id(dt.datetime(1960, 1, 1, tzinfo=dt.UTC)) == first_id(
        dt.datetime.fromtimestamp(0, dt.UTC)
    )
    assert first_id(dt.datetime.now(dt.UTC)) <= new_id()


def test_the_first_ones_begin_after_two_nights() -> None:
    """So that what was interrupted can be ended before they begin."""
    found = to_make(Ledger(parted=False), NOW, "day")
    assert names(found)[0] == "d20260301"
    assert time_of(found[-1].end) > NOW + dt.timedelta(days=14)


def test_there_are_none_of_a_whole_table_unless_somebody_asks() -> None:
    assert to_make(Ledger(parted=False), NOW) == []
    assert to_make(Ledger(parted=True), NOW) == []
    assert not is_short(Ledger(parted=True), NOW)


def test_more_of_the_same_length() -> None:
    there = Ledger(parted=True, partitions=list(planned(at(2, 20), at(3, 1), "day")))
    assert names(to_make(there, NOW))[0] == "d20260302"
    assert names(to_make(there, NOW, "week"))[0] == "w20260302"
    assert is_short(there, NOW)
    assert not is_short(there, at(2, 20))


def test_after_a_long_pause_none_begins_in_the_past() -> None:
    there = Ledger(parted=True, partitions=list(planned(at(1, 1), at(1, 9), "day")))
    assert names(to_make(there, NOW))[0] == "d20260301"


def test_partitions_of_somebody_else_are_left_alone() -> None:
    other = Partition("results_of_march", first_id(at(3, 1)), first_id(at(4, 1)))
    there = Ledger(parted=True, partitions=[other])
    assert other.every == ""
    assert to_make(there, NOW) == []
    assert not is_short(there, NOW)


def test_the_first_id_of_the_partition_that_has_an_id() -> None:
    found = list(planned(at(2, 26), at(3, 1), "day"))
    there = Ledger(parted=True, partitions=found)
    assert there.floor(first_id(NOW)) == first_id(at(2, 27))
    assert there.floor(found[1].start) == found[1].start
    before = first_id(at(1, 1))
    assert there.floor(before) == before
    assert Ledger(parted=False).floor(before) == before
