from typing import Any

import redis

from jobs.broker.scripts import TASK_COUNTS
from tests.integration.broker.lua.keys import METRICS


def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_reads_the_fields_that_are_asked_for(run: Any, client: redis.Redis) -> None:
    client.hset(
        f"{METRICS}day:20000:tasks",
        mapping={"=add": 1, "=fail": 2, "0:failed": 9, "1:failed": 0, "1:r5": 3, "2:failed": 4},
    )
    first, second = run(TASK_COUNTS, (METRICS,), 1, "failed", "day:20000:tasks", "day:19999:tasks")
    assert pairs(first) == {
        b"=add": b"1",
        b"=fail": b"2",
        b"0:failed": b"9",
        b"1:failed": b"0",
        b"2:failed": b"4",
    }
    assert second == []


def test_hundreds_of_tasks(run: Any, client: redis.Redis) -> None:
    """More fields than one command of a script can ask for."""
    names = {f"=task{n}": n for n in range(1, 601)}
    counts = {f"{n}:{field}": n for n in range(1, 601) for field in ("succeeded", "failed")}
    client.hset(f"{METRICS}ever:0:tasks", mapping=names | counts)
    [found] = run(TASK_COUNTS, (METRICS,), 2, "succeeded", "failed", "ever:0:tasks")
    assert len(pairs(found)) == 600 * 3
    assert pairs(found)[b"600:failed"] == b"600"
