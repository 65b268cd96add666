"""SAQ on Redis; its tasks are coroutines."""

import asyncio
import math
import os
from collections.abc import Coroutine, Iterable
from typing import Any

from saq import Queue

from benchmarks import work

#: Seconds to keep a job after its end; -1 keeps nothing.
TTL = 3600 if os.environ["BENCH_RESULTS"] else -1
queue = Queue.from_url(os.environ["BENCH_REDIS_URL"], name="bench")


async def noop(context: dict[str, Any], *, number: int) -> None:
    work.noop(number)


async def echo(context: dict[str, Any], *, number: int) -> int:
    return work.echo(number)


async def stamp(context: dict[str, Any], *, at: int) -> None:
    work.stamp(at)


#: What the command ``saq`` reads.
settings = {"queue": queue, "functions": [noop, echo, stamp]}

_loop: asyncio.AbstractEventLoop | None = None


def _run(job: Coroutine[Any, Any, Any]) -> Any:
    """Run ``job`` on the one event loop of this process, whose connections are kept."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        _loop.run_until_complete(queue.connect())
    return _loop.run_until_complete(job)


def send_singly(numbers: Iterable[int]) -> None:
    async def send() -> None:
        for number in numbers:
            await queue.enqueue("noop", number=number, ttl=TTL)

    _run(send())


send_bulk = None


def send_stamp(at: int, delay: float | None) -> None:
    # It schedules in whole seconds; the next one, so that no task starts too early.
    due = 0 if delay is None else math.ceil(at / 1e9)
    _run(queue.enqueue("stamp", at=at, scheduled=due, ttl=-1))


def round_trip(number: int) -> int:
    answer: int = _run(queue.apply("echo", number=number, ttl=TTL, timeout=10))
    return answer
