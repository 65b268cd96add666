"""Which shard a message goes to, and how the lists of shards become one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.broker import sharding
from jobs.broker.base import Consumer, Outgoing
from jobs.broker.memory import MemoryBroker
from jobs.broker.sharding import Sharded, number_for, queue_of, shard, shown
from jobs.conf.values import SHARDS_MOST, is_queue_name

counts = st.integers(1, SHARDS_MOST)


@given(st.text(max_size=30).filter(is_queue_name), st.integers(0, SHARDS_MOST))
def test_a_shard_is_no_queue_s_name_and_tells_its_queue(queue: str, number: int) -> None:
    name = shard(queue, number)
    assert queue_of(name) == queue
    assert is_queue_name(name) is (number == 0)
    assert shown(name) == (f"{queue}/{number}" if number else queue)


@given(st.text(), counts)
def test_equal_keys_have_one_shard(key: str, count: int) -> None:
    assert number_for(key, count) == number_for(key, count) < count


def test_the_shard_of_a_key_is_the_same_in_every_process_and_version() -> None:
    assert [number_for(key, 8) for key in ("order-1", "order-2", "straße", "")] == [7, 5, 5, 0]


def test_keys_are_spread() -> None:
    found = Counter(number_for(f"order-{n}", 8) for n in range(8_000))
    assert set(found) == set(range(8))
    assert all(850 < n < 1150 for n in found.values())


@settings(max_examples=20)
@given(counts, st.integers(1, 5))
def test_turns_are_even(count: int, each: int) -> None:
    behind = MemoryBroker()
    whole = Sharded(behind, {"mail": count} if count > 1 else {})
    whole.push([Outgoing("mail", b"%d" % n) for n in range(count * each)])
    assert {behind.stats(shard("mail", n)).waiting for n in range(count)} == {each}


@settings(max_examples=20)
@given(counts, st.text(min_size=1), st.integers(1, 5))
def test_what_has_a_key_stays_together_and_in_order(count: int, key: str, each: int) -> None:
    behind = MemoryBroker()
    whole = Sharded(behind, {"mail": count} if count > 1 else {})
    for n in range(each):
        whole.push((Outgoing(whole.address_for("mail", key), b"%d" % n),))
        whole.push((Outgoing("mail", b"another"),))
    claimed = behind.claim(shard("mail", number_for(key, count)), "w", 1, 1000, 60).messages
    assert [raw for _, raw in claimed if raw != b"another"] == [b"%d" % n for n in range(each)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 60))
def test_the_row_of_a_place(lengths: list[int], start: int) -> None:
    rows = [row for row in range(10) for length in lengths if row < length]
    before, row = sharding._row_of(start, lengths)
    if start < len(rows):
        assert row == rows[start]
        assert before == rows.index(row)
    else:
        assert before == len(rows)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 3)), unique=True))
def test_the_letters_before_a_key_are_those_that_stand_behind_it(
    places: list[tuple[int, int, int]],
) -> None:
    keys = [f"{time}-{number}" + (f".{of}" if of else "") for time, number, of in places]
    for key in keys:
        older = set()
        for place, other in zip(places, keys, strict=True):
            bound = sharding._before(key, place[2])
            assert bound is not None
            # As the broker of one shard compares them.
            if place[:2] < sharding.place_among(bound)[:2]:
                older.add(other)
        assert older == {k for k in keys if sharding.place_among(k) < sharding.place_among(key)}


def test_a_consumer_of_several_shards_is_one() -> None:
    found = sharding._by_name(
        [Consumer("w1", 3.0, 1), Consumer("w2", -1.0, 0), Consumer("w1", 9.0, 2)]
    )
    assert found == [Consumer("w1", 9.0, 3), Consumer("w2", -1.0, 0)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_queue_without_shards_is_left_alone(count: int) -> None:
    behind = MemoryBroker()
    whole = Sharded(behind, {"mail": count} if count > 1 else {})
    whole.push([Outgoing("post", b"a")])
    assert whole.shards_of("post") == ["post"]
    assert whole.stats("post") == behind.stats("post")
