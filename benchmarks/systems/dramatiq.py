"""Dramatiq: two processes with its default of eight threads each."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System, count_keys


@dataclass
class Dramatiq(System):
    """The dramatiq command with the Redis broker."""

    def commands(self, processes: int) -> list[list[str]]:
        command = ["-m", "dramatiq", self.app, "--queues", "bench"]
        return [[*command, "--processes", str(processes), "--threads", "8"]]

    def waiting(self, bench: Bench) -> int:
        # The hash of messages holds those in the queue and those in flight until they are acked.
        return bench.valkey.client.hlen("dramatiq:bench.msgs")

    def kept(self, bench: Bench) -> int | None:
        # Its keys are digests.
        return count_keys(bench, "?" * 32) if self.results else None


APP = "benchmarks.apps.dramatiq"
SYSTEMS = [
    Dramatiq("dramatiq", APP, "dramatiq", backlog=25_000),
    Dramatiq("dramatiq-redis", APP, "dramatiq", results="redis", backlog=20_000),
]
