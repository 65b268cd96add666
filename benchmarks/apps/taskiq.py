"""taskiq on Redis streams; its tasks are coroutines, as its documentation writes them."""

import asyncio
import os
from collections.abc import Coroutine, Iterable
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import work

URL = os.environ["BENCH_REDIS_URL"]
# From the start of the stream, since the backlog is there before the workers are.
broker = RedisStreamBroker(URL, queue_name="bench", consumer_id="0")
if os.environ["BENCH_RESULTS"]:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=3600))


@broker.task
async def noop(number: int) -> None:
    work.noop(number)


@broker.task
async def echo(number: int) -> int:
    return work.echo(number)


@broker.task
async def stamp(at: int) -> None:
    work.stamp(at)


_loop: asyncio.AbstractEventLoop | None = None


def _run(job: Coroutine[Any, Any, Any]) -> Any:
    """Run ``job`` on the one event loop of this process, on which the broker was started."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        _loop.run_until_complete(broker.startup())
    return _loop.run_until_complete(job)


def send_singly(numbers: Iterable[int]) -> None:
    async def send() -> None:
        for number in numbers:
            await noop.kiq(number)

    _run(send())


send_bulk = None


def send_stamp(at: int, delay: float | None) -> None:
    if delay is not None:
        raise NotImplementedError("taskiq leaves countdowns to a scheduler process of its own.")
    _run(stamp.kiq(at))


def round_trip(number: int) -> int:
    async def trip() -> int:
        sent = await echo.kiq(number)
        result = await sent.wait_result(check_interval=0.005, timeout=10)
        answer: int = result.return_value
        return answer

    answer: int = _run(trip())
    return answer
