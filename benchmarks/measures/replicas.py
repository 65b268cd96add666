"""What it costs a sender to wait until a replica has its message."""

import time
from typing import cast

from ..bench import Bench, BenchmarkError
from ..servers import START_SECONDS, valkey
from ..systems import System
from .base import Column, Figures, Measure

SENT = 4_000


def run(system: System, bench: Bench) -> Figures:
    """Send to a server with one replica, in turn without and with waiting for it."""
    system.prepare(bench)
    where = bench.valkey.client.connection_pool.connection_kwargs
    folder = bench.folder / "replica"
    folder.mkdir(exist_ok=True)
    with valkey(folder, ["--replicaof", f"{where['host']} {where['port']}"]) as replica:
        # Once it follows, it says at each write what it has.
        deadline = time.monotonic() + START_SECONDS
        while replica.client.info("replication")["master_link_status"] != "up":
            if time.monotonic() > deadline:
                raise BenchmarkError("The replica does not follow.")
            time.sleep(0.1)
        told = cast("dict[str, float]", system.act(bench, "replicated", count=SENT))
        if replica.client.llen("bench") != bench.valkey.client.llen("bench"):
            raise BenchmarkError("The replica does not have what was sent.")
    return {**told, "ratio": told["waited"] / told["plain"]}


MEASURE = Measure(
    name="replicas",
    title="delay() without and with BROKER_WAIT_REPLICAS = 1, a replica on the same machine",
    run=run,
    columns=(
        Column("plain", "µs, p50"),
        Column("waited", "with waiting µs, p50"),
        Column("ratio", "÷", 2),
        Column("plain_p99", "µs, p99"),
        Column("waited_p99", "with waiting µs, p99"),
    ),
    systems=("jobsite",),
)
