"""The peers on asyncio: arq, SAQ and streaQ, two worker processes each."""

from dataclasses import dataclass

import redis

from ..bench import Bench
from .base import System, count_keys


@dataclass
class Arq(System):
    """Two ``arq`` commands. It needs a redis-py below 6, and so has an environment of its own."""

    apart: str = "arq"

    def commands(self, processes: int) -> list[list[str]]:
        return [["-m", "arq", f"{self.app}.WorkerSettings"]] * processes

    def waiting(self, bench: Bench) -> int:
        return int(bench.valkey.client.zcard("bench"))  # a job stays there until it has ended

    def kept(self, bench: Bench) -> int | None:
        return count_keys(bench, "arq:result:*") if self.results else None


@dataclass
class Saq(System):
    """The ``saq`` command, which starts the processes."""

    def commands(self, processes: int) -> list[list[str]]:
        return [["-m", "saq", f"{self.app}.settings", "--workers", str(processes), "--quiet"]]

    def waiting(self, bench: Bench) -> int:
        return int(bench.valkey.client.zcard("saq:bench:incomplete"))

    def kept(self, bench: Bench) -> int | None:
        return count_keys(bench, "saq:job:bench:*") if self.results else None


@dataclass
class Streaq(System):
    """The ``streaq`` command, which starts the processes."""

    def commands(self, processes: int) -> list[list[str]]:
        return [["-m", "streaq", "run", f"{self.app}:worker", "--workers", str(processes)]]

    def waiting(self, bench: Bench) -> int:
        # Acknowledged messages are deleted from the stream.
        try:
            return int(bench.valkey.client.xlen("streaq:bench:queues:normal"))
        except redis.ResponseError:
            return 0

    def kept(self, bench: Bench) -> int | None:
        return count_keys(bench, "streaq:bench:task:results:*") if self.results else None


SYSTEMS = [
    Arq("arq", "benchmarks.apps.arq", "arq", backlog=12_000),
    Arq("arq-redis", "benchmarks.apps.arq", "arq", results="redis", backlog=10_000),
    Saq("saq", "benchmarks.apps.saq", "saq", backlog=20_000),
    Saq("saq-redis", "benchmarks.apps.saq", "saq", results="redis", backlog=18_000),
    Streaq("streaq", "benchmarks.apps.streaq", "streaq", backlog=15_000),
    Streaq("streaq-redis", "benchmarks.apps.streaq", "streaq", results="redis", backlog=12_000),
]
