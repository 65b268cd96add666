"""Nothing but redis-py: pipelines of 100 LPUSHes."""

import os
from collections.abc import Sequence

from redis import Redis

redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
#: A message as long as this program's own are.
MESSAGE = b"x" * int(os.environ["BENCH_MESSAGE_BYTES"])


def send_singly(numbers: Sequence[int]) -> None:
    for _ in numbers:
        redis.lpush("bench", MESSAGE)


def send_bulk(numbers: Sequence[int]) -> None:
    for start in range(0, len(numbers), 100):
        pipeline = redis.pipeline(transaction=False)
        for _ in numbers[start : start + 100]:
            pipeline.lpush("bench", MESSAGE)
        pipeline.execute()
