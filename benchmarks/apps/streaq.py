"""streaQ; its tasks are coroutines."""

import asyncio
import os
from collections.abc import Coroutine, Iterable
from typing import Any

from streaq import Worker

from benchmarks import work

#: Seconds to keep a result; 0 keeps none.
TTL = 3600 if os.environ["BENCH_RESULTS"] else 0
worker = Worker(redis_url=os.environ["BENCH_REDIS_URL"], queue_name="bench")


@worker.task(ttl=TTL, silent=True)
async def noop(number: int) -> None:
    work.noop(number)


@worker.task(ttl=TTL, silent=True)
async def echo(number: int) -> int:
    return work.echo(number)


@worker.task(ttl=0, silent=True)
async def stamp(at: int) -> None:
    work.stamp(at)


_loop: asyncio.AbstractEventLoop | None = None


def _run(job: Coroutine[Any, Any, Any]) -> Any:
    """Run ``job`` on the one event loop of this process, whose connections are kept."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        _loop.run_until_complete(worker.__aenter__())
    return _loop.run_until_complete(job)


def send_singly(numbers: Iterable[int]) -> None:
    async def send() -> None:
        for number in numbers:
            await noop.enqueue(number)

    _run(send())


def send_bulk(numbers: Iterable[int]) -> None:
    _run(worker.enqueue_many([noop.enqueue(number) for number in numbers]))


def send_stamp(at: int, delay: float | None) -> None:
    async def send() -> None:
        task = stamp.enqueue(at)
        await (task if delay is None else task.start(delay=delay))

    _run(send())


def round_trip(number: int) -> int:
    async def trip() -> int:
        task = await echo.enqueue(number)
        answer: int = (await task.result(timeout=10)).result
        return answer

    result: int = _run(trip())
    return result
