"""Huey with its Redis storage."""

import os
from collections.abc import Iterable

from huey import RedisHuey

from benchmarks import work

huey = RedisHuey(
    "bench", url=os.environ["BENCH_REDIS_URL"], results=bool(os.environ["BENCH_RESULTS"])
)
noop = huey.task()(work.noop)
echo = huey.task()(work.echo)
stamp = huey.task()(work.stamp)


def send_singly(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop(number)


send_bulk = None


def send_stamp(at: int, delay: float | None) -> None:
    if delay is None:
        stamp(at)
    else:
        stamp.schedule((at,), delay=delay)


def round_trip(number: int) -> int:
    answer: int = echo(number).get(blocking=True, timeout=10)
    return answer
