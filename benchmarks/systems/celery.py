"""Celery: prefork, two processes, without results or with them where they are usually kept."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System
from .rows import count_rows


@dataclass
class Celery(System):
    """A Celery worker as its guide for speed has it: no gossip, no mingling, default prefetch.

    ``keeps``: whether its children keep their database connections, which they don't by default.
    """

    keeps: bool = True

    def commands(self, processes: int) -> list[list[str]]:
        command = ["-m", "celery", "-A", self.app, "worker", "--pool", "prefork"]
        command += ["--concurrency", str(processes), "--loglevel", "WARNING"]
        return [[*command, "--without-gossip", "--without-mingle", "--without-heartbeat"]]

    def environment(self, bench: Bench) -> dict[str, str]:
        keeps = {"BENCH_KEEP_CONNECTIONS": "1" if self.keeps else ""}
        return {**super().environment(bench), **keeps}

    def waiting(self, bench: Bench) -> int:
        redis = bench.valkey.client
        return redis.llen("bench") + redis.hlen("unacked")

    def recorded(self, bench: Bench) -> int | None:
        if self.results not in ("sqlite", "postgres"):
            return None
        url = self.environment(bench)["BENCH_DATABASE_URL"]
        return count_rows(url, "django_celery_results_taskresult", "status = 'SUCCESS'")


APP = "benchmarks.apps.celery"
SYSTEMS = [
    Celery("celery", APP, "celery", backlog=12_000),
    Celery("celery-redis", APP, "celery", results="redis", backlog=9_000),
    Celery("celery-sqlite", APP, "celery", results="sqlite", backlog=4_000),
    Celery("celery-postgres", APP, "celery", results="postgres", backlog=5_000),
    Celery(
        "celery-postgres-closing", APP, "celery", results="postgres", backlog=2_500, keeps=False
    ),
]
