"""What a message costs Redis and the workers on one server and on a Cluster, spread or not."""

from ..bench import Bench, wait_until
from ..systems import System
from . import throughput
from .base import Column, Figures, Measure

#: How many are sent one by one.
SINGLES = 5_000
#: How many are sent to idle workers, and how many a second.
TRICKLE, RATE = 1_000, 200


def run(system: System, bench: Bench) -> Figures:
    """Drain a backlog; then send one by one to nobody, and then slowly to idle workers.

    A GET shows what the machine asks for the least that a command can be.
    """
    drained = throughput.run(system, bench)
    found: Figures = {key: drained[key] for key in ("rate", "cpu", "commands", "server_cpu")}
    system.prepare(bench)
    before = bench.valkey.cpu_seconds()
    for _ in range(SINGLES):
        bench.valkey.client.get("nothing")
    found["get"] = (bench.valkey.cpu_seconds() - before) / SINGLES * 1e6
    before = bench.valkey.cpu_seconds()
    system.act(bench, "send_slowly", count=SINGLES, rate=1e9)
    found["sent"] = (bench.valkey.cpu_seconds() - before) / SINGLES * 1e6
    system.prepare(bench)
    workers = system.start(bench)
    try:
        system.greet(bench, workers)
        before, cpu = bench.valkey.cpu_seconds(), workers.cpu_seconds()
        system.act(bench, "send_slowly", count=TRICKLE, rate=RATE)
        wait_until(lambda: system.waiting(bench) == 0, "all to be run", 60, workers, every=0.2)
        found["alone"] = (bench.valkey.cpu_seconds() - before) / TRICKLE * 1e6
        found["alone_cpu"] = (workers.cpu_seconds() - cpu) / TRICKLE * 1e6
    finally:
        workers.stop()
    return found


MEASURE = Measure(
    name="scale",
    title="One server and a Cluster of three, a queue and the same in shards",
    run=run,
    columns=(
        *throughput.DRAIN,
        Column("get", "Redis CPU µs/GET", 1),
        Column("sent", "Redis CPU µs/send", 1),
        Column("alone", "Redis CPU µs, one at a time"),
        Column("alone_cpu", "CPU µs, one at a time"),
    ),
    systems=("jobsite", "jobsite-shards", "jobsite-cluster", "jobsite-cluster-shards"),
    ratios=(("rate", "jobsite"), ("cpu", "jobsite"), ("server_cpu", "jobsite")),
)
