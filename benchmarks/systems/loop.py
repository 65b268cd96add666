"""No job system, but the least that a reliable loop has to do: the limit of the machine."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System
from .rows import count_rows


@dataclass
class Loop(System):
    """Two processes of ``benchmarks.apps.loop``."""

    def commands(self, processes: int) -> list[list[str]]:
        return [["-m", self.app]] * processes

    def waiting(self, bench: Bench) -> int:
        redis = bench.valkey.client
        flying = sum(redis.hlen(key) for key in redis.scan_iter("{bench}:inflight:*", count=1000))
        return redis.llen("bench") + flying

    def recorded(self, bench: Bench) -> int | None:
        if not self.results:
            return None
        return count_rows(self.database_url(bench), "outcome", "state = 'SUCCESS'")


APP = "benchmarks.apps.loop"
SYSTEMS = [
    Loop("loop", APP, "redis", backlog=200_000, peer=False),
    Loop("loop-sqlite", APP, "redis", results="sqlite", backlog=150_000, peer=False),
    Loop("loop-postgres", APP, "redis", results="postgres", backlog=120_000, peer=False),
]
