"""How long short calls wait while one in a hundred takes a second."""

from .. import work
from ..bench import Bench, interpreter, start_workers, wait_until
from ..systems import System
from .base import Column, Figures, Measure, percentile

#: Calls a second: so many that the long ones keep one of two processes busy.
RATE = 100
CALLS = 1500
#: How the workers are started: two processes that run one call at a time, or four each.
WAYS = {"processes": (), "threads": ("--threads", "4")}


def run(system: System, bench: Bench) -> Figures:
    """Send short calls at a steady rate, first alone and then with long ones among them."""
    found: Figures = {}
    for way, arguments in WAYS.items():
        system.prepare(bench)
        command = [*system.commands(2)[0], *arguments]
        workers = start_workers(
            bench, interpreter(system.apart), [command], system.environment(bench)
        )
        try:
            system.greet(bench, workers)
            for what, every in (("alone", 0), ("mixed", 100)):
                bench.stamps.write_bytes(b"")
                system.act(bench, "mixture", count=CALLS, rate=RATE, every=every)
                short = CALLS - (CALLS // every if every else 0)
                wait_until(
                    lambda short=short: bench.stamps.read_bytes().count(b"\n") >= short,
                    f"{short} short calls to start",
                    60,
                    workers,
                )
                stamps = work.read_stamps(bench.stamps)
                waits = [(started - sent) / 1e6 for sent, started in stamps]
                found[f"{way}_{what}_p50"] = percentile(waits, 0.5)
                found[f"{way}_{what}_p99"] = percentile(waits, 0.99)
        finally:
            workers.stop()
        alone, mixed = found[f"{way}_alone_p99"], found[f"{way}_mixed_p99"]
        assert alone
        assert mixed
        found[f"{way}_ratio"] = mixed / alone
    return found


MEASURE = Measure(
    name="mixed",
    title=f"{RATE} short calls a second, one in a hundred of which takes 1 s instead; ms to start",
    run=run,
    columns=tuple(
        column
        for way in WAYS
        for column in (
            Column(f"{way}_alone_p50", f"{way}: alone p50", 1),
            Column(f"{way}_alone_p99", "p99", 1),
            Column(f"{way}_mixed_p50", "mixed p50", 1),
            Column(f"{way}_mixed_p99", "p99", 1),
            Column(f"{way}_ratio", "p99 mixed ÷ alone", 2),
        )
    ),
    systems=("jobsite",),
)
