"""taskiq: two worker processes on Redis streams."""

from dataclasses import dataclass

import redis

from ..bench import Bench
from .base import System, count_keys


@dataclass
class Taskiq(System):
    """The taskiq command with the stream broker of taskiq-redis."""

    def commands(self, processes: int) -> list[list[str]]:
        command = ["-m", "taskiq", "worker", f"{self.app}:broker", "--log-level", "WARNING"]
        return [[*command, "--workers", str(processes)]]

    def waiting(self, bench: Bench) -> int:
        # Acknowledged messages stay in the stream: what counts is how far its group has come.
        try:
            groups = bench.valkey.client.xinfo_groups("bench")
        except redis.ResponseError:
            return 0
        return sum(group["pending"] + (group["lag"] or 0) for group in groups)

    def kept(self, bench: Bench) -> int | None:
        # Its keys are the ids of the tasks.
        return count_keys(bench, "?" * 32) if self.results else None


APP = "benchmarks.apps.taskiq"
SYSTEMS = [
    Taskiq("taskiq", APP, "taskiq", backlog=45_000, countdowns=False),
    Taskiq("taskiq-redis", APP, "taskiq", results="redis", backlog=25_000, countdowns=False),
]
