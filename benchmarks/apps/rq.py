"""RQ with its default job class."""

import os
from collections.abc import Iterable
from datetime import timedelta

from redis import Redis
from rq import Queue

from benchmarks import work

queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]))
#: Seconds to keep a result; 0 keeps none.
TTL = 500 if os.environ["BENCH_RESULTS"] else 0


def send_singly(numbers: Iterable[int]) -> None:
    for number in numbers:
        queue.enqueue(work.noop, number, result_ttl=TTL)


def send_bulk(numbers: Iterable[int]) -> None:
    queue.enqueue_many(
        [Queue.prepare_data(work.noop, (number,), result_ttl=TTL) for number in numbers]
    )


def send_stamp(at: int, delay: float | None) -> None:
    if delay is None:
        queue.enqueue(work.stamp, at, result_ttl=0)
    else:
        queue.enqueue_in(timedelta(seconds=delay), work.stamp, at, result_ttl=0)


def round_trip(number: int) -> int:
    job = queue.enqueue(work.echo, number, result_ttl=TTL)
    result = job.latest_result(timeout=10)
    if result is None:
        raise RuntimeError(f"RQ gave no result of job {job.id} within 10 s.")
    return int(result.return_value or 0)
