from typing import Any

import redis

from jobs.broker.scripts import COUNT
from tests.integration.broker.lua.keys import METRICS


def test_adds_at_each_level(run: Any, now: int, client: redis.Redis) -> None:
    told = [500, "", 2, "succeeded", 3, "w4", 2, "a", 1, "succeeded", 3, "", 1, "failed", 1]
    run(COUNT, (METRICS,), *told)
    run(COUNT, (METRICS,), *told)
    keys = {key.decode() for key in client.keys("*")}
    assert len(keys) == 10
    day = f"{METRICS}day:{now // 86_400_000}"
    assert {day, f"{day}:tasks", f"{METRICS}ever:0", f"{METRICS}ever:0:tasks"} <= keys
    assert client.hgetall(f"{METRICS}ever:0") == {b"succeeded": b"6", b"w4": b"4"}
    assert client.hgetall(f"{METRICS}ever:0:tasks") == {
        b"#": b"1",
        b"=a": b"1",
        b"1:succeeded": b"6",
        b"0:failed": b"2",
    }


def test_beyond_the_most_a_task_is_another(run: Any, client: redis.Redis) -> None:
    for name in "abca":
        run(COUNT, (METRICS,), 2, "", 0, name, 1, "failed", 1)
    found = client.hgetall(f"{METRICS}ever:0:tasks")
    assert {key: int(n) for key, n in found.items()} == {
        b"#": 2,
        b"=a": 1,
        b"=b": 2,
        b"1:failed": 2,
        b"2:failed": 1,
        b"0:failed": 1,
    }


def test_nothing_writes_nothing(run: Any, client: redis.Redis) -> None:
    run(COUNT, (METRICS,), 500, "", 0)
    assert client.keys("*") == []
