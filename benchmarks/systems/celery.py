"""Celery: two processes, without results or with them where they are usually kept."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System, count_keys
from .rows import count_rows


@dataclass
class Celery(System):
    """A Celery worker as its guide for speed has it: no gossip, no mingling, default prefetch.

    ``keeps``: whether its children keep their database connections, which they don't by default.
    ``threads``: of each process; 0: one worker that forks its processes (the pool ``prefork``).
    """

    keeps: bool = True
    threads: int = 0

    def commands(self, processes: int) -> list[list[str]]:
        command = ["-m", "celery", "-A", self.app, "worker", "--loglevel", "WARNING"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        if not self.threads:
            return [[*command, "--pool", "prefork", "--concurrency", str(processes)]]
        command += ["--pool", "threads", "--concurrency", str(self.threads)]
        return [[*command, "--hostname", f"w{number}@%h"] for number in range(processes)]

    def environment(self, bench: Bench) -> dict[str, str]:
        keeps = {"BENCH_KEEP_CONNECTIONS": "1" if self.keeps else ""}
        return {**super().environment(bench), **keeps}

    def waiting(self, bench: Bench) -> int:
        redis = bench.valkey.client
        return redis.llen("bench") + redis.hlen("unacked")

    def recorded(self, bench: Bench) -> int | None:
        if self.results not in ("sqlite", "postgres"):
            return None
        table = "django_celery_results_taskresult"
        return count_rows(self.database_url(bench), table, "status = 'SUCCESS'")

    def kept(self, bench: Bench) -> int | None:
        if self.results == "redis":
            return count_keys(bench, "celery-task-meta-*")
        return self.recorded(bench)


APP = "benchmarks.apps.celery"
SYSTEMS = [
    Celery("celery", APP, "celery", backlog=12_000),
    Celery("celery-redis", APP, "celery", results="redis", backlog=9_000),
    Celery("celery-sqlite", APP, "celery", results="sqlite", backlog=4_000),
    Celery("celery-postgres", APP, "celery", results="postgres", backlog=5_000),
    Celery(
        "celery-postgres-closing", APP, "celery", results="postgres", backlog=2_500, keeps=False
    ),
    Celery("celery-threads", APP, "celery", backlog=15_000, threads=8),
    Celery("celery-threads-redis", APP, "celery", results="redis", backlog=9_000, threads=8),
    Celery("celery-threads-sqlite", APP, "celery", results="sqlite", backlog=3_000, threads=8),
    Celery("celery-threads-postgres", APP, "celery", results="postgres", backlog=5_000, threads=8),
]
