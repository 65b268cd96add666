"""This program, without results and with them in Django's database."""

from dataclasses import dataclass

from ..bench import Bench, BenchmarkError
from .base import System
from .rows import count_rows

#: Between the queue's name and the number of a shard: see `jobs.broker.sharding`.
MARK = "\x16"


@dataclass
class Jobsite(System):
    """``manage.py runworker`` with this folder's own settings module."""

    settings: str = "benchmarks.settings"
    preload: bool = True
    #: Over how many lists the queue is spread.
    shards: int = 1

    def commands(self, processes: int) -> list[list[str]]:
        command = ["manage.py", "runworker", "--queues", "bench"]
        return [[*command, "--processes", str(processes)]]

    def environment(self, bench: Bench) -> dict[str, str]:
        return {
            **super().environment(bench),
            "DJANGO_SETTINGS_MODULE": self.settings,
            "BENCH_PRELOAD": str(int(self.preload)),
            "BENCH_SHARDS": str(self.shards),
        }

    def waiting(self, bench: Bench) -> int:
        redis = bench.valkey.client
        flying = list(redis.scan_iter("{bench*}:inflight:*", count=1000))
        # In one round trip: it is asked again and again, while the clock runs.
        asked = redis.pipeline(transaction=False)
        for name in ["bench", *(f"bench{MARK}{n}" for n in range(1, self.shards))]:
            # The second is the list on a Cluster.
            asked.llen(name).llen(f"{{{name}}}")
            asked.zcard(f"{{{name}}}:due").xlen(f"{{{name}}}:dead")
        for key in flying:
            asked.hlen(key)
        of_tenants = sum(map(int, redis.hvals("{bench}:fair")))
        return sum(asked.execute()) + of_tenants

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
    Jobsite(
        *("jobsite-cluster-shards", APP, "jobsite"),
        backlog=150_000,
        peer=False,
        cluster=True,
        shards=8,
    ),
    # For ``--only``: what it costs to spread a queue on one server.
    Jobsite("jobsite-shards", APP, "jobsite", backlog=150_000, peer=False, shards=8),
    Jobsite(
        *("jobsite-sqlite-shards", APP, "jobsite"),
        results="sqlite",
        backlog=100_000,
        peer=False,
        shards=8,
    ),
    # On servers of which one stands in for another: see `failover`.
    Jobsite("jobsite-sentinels", APP, "jobsite", peer=False),
    Jobsite("jobsite-cluster-replicas", APP, "jobsite", peer=False),
    Jobsite("jobsite-admin", APP, "jobsite", peer=False, settings=ADMIN),
    Jobsite("jobsite-admin-fresh", APP, "jobsite", peer=False, settings=ADMIN, preload=False),
]
