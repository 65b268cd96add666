"""arq, polling as often as it may: with its default of half a second, idle starts take as long."""

import asyncio
import os
from collections.abc import Coroutine, Iterable
from datetime import timedelta
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func

from benchmarks import work

SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])
#: Seconds to keep a result; 0 keeps none.
KEEP = 3600 if os.environ["BENCH_RESULTS"] else 0


async def noop(context: dict[Any, Any], number: int) -> None:
    work.noop(number)


async def echo(context: dict[Any, Any], number: int) -> int:
    return work.echo(number)


async def stamp(context: dict[Any, Any], at: int) -> None:
    work.stamp(at)


class WorkerSettings:
    """What the command ``arq`` reads."""

    functions = [func(task, keep_result=KEEP) for task in (noop, echo, stamp)]
    redis_settings = SETTINGS
    queue_name = "bench"
    max_jobs = 100
    poll_delay = 0.01
    log_results = False


_loop: asyncio.AbstractEventLoop | None = None
_pool: ArqRedis


def _run(job: Coroutine[Any, Any, Any]) -> Any:
    """Run ``job`` on the one event loop of this process, whose connections are kept."""
    global _loop, _pool
    if _loop is None:
        _loop = asyncio.new_event_loop()
        _pool = _loop.run_until_complete(create_pool(SETTINGS, default_queue_name="bench"))
    return _loop.run_until_complete(job)


def send_singly(numbers: Iterable[int]) -> None:
    async def send() -> None:
        for number in numbers:
            await _pool.enqueue_job("noop", number)

    _run(send())


send_bulk = None


def send_stamp(at: int, delay: float | None) -> None:
    async def send() -> None:
        later = None if delay is None else timedelta(seconds=delay)
        await _pool.enqueue_job("stamp", at, _defer_by=later)

    _run(send())


def round_trip(number: int) -> int:
    async def trip() -> int:
        job = await _pool.enqueue_job("echo", number)
        assert job is not None
        answer: int = await job.result(timeout=10, poll_delay=0.005)
        return answer

    result: int = _run(trip())
    return result
