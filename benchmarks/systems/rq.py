"""RQ: two workers, each of which forks for every job."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System, count_keys


@dataclass
class Rq(System):
    """Two plain ``rq worker`` processes; their scheduler is on, since countdowns need it."""

    def commands(self, processes: int) -> list[list[str]]:
        return [["-m", "rq.cli", "worker", "--quiet", "--with-scheduler", "bench"]] * processes

    def environment(self, bench: Bench) -> dict[str, str]:
        return {**super().environment(bench), "RQ_REDIS_URL": bench.valkey.url}

    def waiting(self, bench: Bench) -> int:
        redis = bench.valkey.client
        return redis.llen("rq:queue:bench") + redis.zcard("rq:wip:bench")

    def kept(self, bench: Bench) -> int | None:
        return count_keys(bench, "rq:results:*") if self.results else None


APP = "benchmarks.apps.rq"
SYSTEMS = [
    Rq("rq", APP, "rq", backlog=700),
    Rq("rq-redis", APP, "rq", results="redis", backlog=700),
]
