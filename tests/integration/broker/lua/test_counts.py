from typing import Any

import redis

from jobs.broker.scripts import COUNTS
from tests.integration.broker.lua.keys import METRICS


def test_reads_what_waits_and_each_span(run: Any, client: redis.Redis) -> None:
    client.hset(f"{METRICS}sent", "29000000", 5)
    client.hset(f"{METRICS}day:20000", mapping={"sent": 7})
    client.hset(f"{METRICS}day:20000:tasks", mapping={"#": 0})
    asked = ("day:20000", "day:19999", "day:20000:tasks")
    assert run(COUNTS, (METRICS,), *asked) == [
        [b"29000000", b"5"],
        [b"sent", b"7"],
        [],
        [b"#", b"0"],
    ]


def test_an_empty_queue(run: Any) -> None:
    assert run(COUNTS, (METRICS,), "ever:0") == [[], []]
