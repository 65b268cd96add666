"""Nothing but redis-py: what its pipelines send, as a measure for sending in bulk."""

from dataclasses import dataclass

from ..bench import Bench, BenchmarkError
from .base import System


@dataclass
class Bare(System):
    """Pipelines of 100 LPUSHes of messages as long as this program's own. It has no worker."""

    def commands(self, processes: int) -> list[list[str]]:
        raise BenchmarkError("The bare pipeline only sends: it can't be measured otherwise.")

    def environment(self, bench: Bench) -> dict[str, str]:
        return {**super().environment(bench), "BENCH_MESSAGE_BYTES": str(bench.message_bytes)}

    def waiting(self, bench: Bench) -> int:
        return bench.valkey.client.llen("bench")


SYSTEMS = [Bare("redis-py pipeline", "benchmarks.apps.bare", "redis", peer=False)]
