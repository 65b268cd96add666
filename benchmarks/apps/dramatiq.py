"""Dramatiq with its Redis broker."""

import os
from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks import work

broker = RedisBroker(url=os.environ["BENCH_REDIS_URL"])
RESULTS = bool(os.environ["BENCH_RESULTS"])
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_REDIS_URL"])))
dramatiq.set_broker(broker)

keep = {"store_results": True} if RESULTS else {}
noop = dramatiq.actor(queue_name="bench", **keep)(work.noop)
echo = dramatiq.actor(queue_name="bench", **keep)(work.echo)
stamp = dramatiq.actor(queue_name="bench")(work.stamp)


def send_singly(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.send(number)


send_bulk = None


def send_stamp(at: int, delay: float | None) -> None:
    stamp.send_with_options(args=(at,), delay=None if delay is None else int(delay * 1000))


def round_trip(number: int) -> int:
    answer: int = echo.send(number).get_result(block=True, timeout=10_000)
    return answer
