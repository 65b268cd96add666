"""Somebody else's key in a place of ours: the script fails, and no message is lost by it."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from jobs.broker import scripts
from tests.integration.broker.lua.keys import (
    BELL,
    CLAIMED,
    CONSUMERS,
    DEAD,
    DUE,
    FAIR,
    INFLIGHT,
    LISTS,
    METRICS,
    PAUSED,
    PLACES,
    REVOKED,
)

HELD = {b"1": b"held"}
CASES: dict[str, tuple[str, Any, tuple[str, ...], list[Any]]] = {
    "release": (LISTS[0], scripts.RELEASE, (INFLIGHT, BELL, FAIR, *LISTS), [1, 0, ""]),
    "dead_letter": (DEAD, scripts.DEAD_LETTER, (INFLIGHT, DEAD), [1, "why", "w1"]),
    "retry": (DUE, scripts.RETRY, (INFLIGHT, DUE, BELL), [1, 99, "0|again"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_held_stays(case: str, client: redis.Redis, run: Any) -> None:
    key, script, keys, args = CASES[case]
    client.hset(INFLIGHT, mapping={"1": "held"})
    client.set(key, "somebody else's")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run(script, keys, *args)
    assert client.hgetall(INFLIGHT) == HELD


def test_what_is_to_be_parked_stays(client: redis.Redis, run: Any) -> None:
    client.hset(INFLIGHT, mapping={"1": "held"})
    client.hset(PAUSED, "task", "said")
    client.set(DUE, "somebody else's")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run(scripts.PARK, (INFLIGHT, DUE, PAUSED), 8_000, 1, 0, "task")
    assert client.hgetall(INFLIGHT) == HELD


def test_what_is_due_stays(client: redis.Redis, run: Any) -> None:
    client.zadd(DUE, {"0|due": 1})
    client.set(LISTS[0], "somebody else's")
    keys = (INFLIGHT, CONSUMERS, REVOKED, CLAIMED, PAUSED, DUE, BELL, FAIR, *LISTS)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run(scripts.CLAIM, keys, "w1", 5_000, 1, 10, PLACES)
    assert client.zscore(DUE, "0|due") == 1


def test_what_is_read_for_people_is_answered_by_the_key(client: redis.Redis, run: Any) -> None:
    day, workers = f"{METRICS}day:20000", "{mail}:workers"
    for key in (day, f"{METRICS}sent", workers):
        client.set(key, "somebody else's")
    client.hset(f"{METRICS}ever:0", "sent", 7)
    sent, *spans = run(scripts.COUNTS, (METRICS,), "day:20000", "ever:0")
    assert [sent, *spans] == [f"{METRICS}sent".encode(), day.encode(), [b"sent", b"7"]]
    assert run(scripts.TASK_COUNTS, (METRICS,), 1, "failed", "day:20000", "day:1") == [
        day.encode(),
        [],
    ]
    client.hset(PAUSED, "task", "said")
    assert run(scripts.LOOK, (PAUSED, workers, FAIR, *LISTS), 9) == [
        [b"task", b"said"],
        workers.encode(),
        [],
    ]


def test_a_minute_is_moved_once_to_the_spans_that_take_it(client: redis.Redis, run: Any) -> None:
    """The first message of a later minute moves it, and each one of another minute tries anew."""
    client.hset(f"{METRICS}sent", "1", 5)
    client.set(f"{METRICS}ten:0", "somebody else's")
    for _ in range(2):
        run(scripts.PUSH, (LISTS[0], BELL, METRICS), "a")
    assert client.hget(f"{METRICS}minute:1", "sent") == b"5"
    assert client.hget(f"{METRICS}ever:0", "sent") == b"5"
    assert not client.hexists(f"{METRICS}sent", "1")
