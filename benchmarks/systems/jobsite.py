"""This program, without results and with them in Django's database."""

from dataclasses import dataclass

from ..bench import Bench, BenchmarkError
from .base import System
from .rows import count_rows

#: Keys of the queue ``bench`` that hold messages, and the command that counts them.
FLIGHT = "{bench}:inflight:*"


@dataclass
class Jobsite(System):
    """``manage.py runworker`` with this folder's own settings module."""

    settings: str = "benchmarks.settings"
    preload: bool = True

    def commands(self, processes: int) -> list[list[str]]:
        command = ["manage.py", "runworker", "--queues", "bench"]
        return [[*command, "--processes", str(processes)]]

    def environment(self, bench: Bench) -> dict[str, str]:
        return {
            **super().environment(bench),
            "DJANGO_SETTINGS_MODULE": self.settings,
            "BENCH_PRELOAD": str(int(self.preload)),
        }

    def waiting(self, bench: Bench) -> int:
        redis = bench.valkey.client
        elsewhere = redis.zcard("{bench}:due") + redis.xlen("{bench}:dead")
        flying = sum(redis.hlen(key) for key in redis.scan_iter(FLIGHT, count=1000))
        of_tenants = sum(map(int, redis.hvals("{bench}:fair")))
        waiting = redis.llen("bench") + redis.llen("{bench}")  # the latter on a Cluster
        return waiting + of_tenants + elsewhere + flying

    def recorded(self, bench: Bench) -> int | None:
        if not self.results:
            return None
        return count_rows(self.database_url(bench), "jobs_taskresult", "state = 'SUCCESS'")

    def kept(self, bench: Bench) -> int | None:
        if not self.results:
            return None
        # Every call has another argument, and may have one row only.
        rows = count_rows(self.database_url(bench), "jobs_taskresult", "true")
        calls = count_rows(self.database_url(bench), "jobs_taskresult", "state = 'SUCCESS'", "args")
        if rows != calls:
            raise BenchmarkError(f"There are {rows} rows for {calls} calls that have succeeded.")
        return calls


APP = "benchmarks.apps.jobsite"
ADMIN = "benchmarks.settings_admin"
SYSTEMS = [
    Jobsite("jobsite", APP, "jobsite", backlog=150_000, peer=False),
    Jobsite("jobsite-sqlite", APP, "jobsite", results="sqlite", backlog=100_000, peer=False),
    Jobsite("jobsite-postgres", APP, "jobsite", results="postgres", backlog=80_000, peer=False),
    Jobsite("jobsite-cluster", APP, "jobsite", backlog=150_000, peer=False, cluster=True),
    Jobsite("jobsite-admin", APP, "jobsite", peer=False, settings=ADMIN),
    Jobsite("jobsite-admin-fresh", APP, "jobsite", peer=False, settings=ADMIN, preload=False),
]
