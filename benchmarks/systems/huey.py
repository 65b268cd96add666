"""Huey: two worker processes."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System


@dataclass
class Huey(System):
    """The huey consumer with process workers; quiet, and without periodic tasks."""

    def commands(self, processes: int) -> list[list[str]]:
        command = ["-m", "huey.bin.huey_consumer", f"{self.app}.huey", "--quiet", "--no-periodic"]
        return [[*command, "--worker-type", "process", "--workers", str(processes)]]

    def waiting(self, bench: Bench) -> int:
        return bench.valkey.client.llen("huey.redis.bench")


APP = "benchmarks.apps.huey"
SYSTEMS = [
    Huey("huey", APP, "huey", backlog=40_000),
    Huey("huey-redis", APP, "huey", results="redis", backlog=35_000),
]
