"""How exactly a fleet of four processes keeps a rate limit of 100 starts a second."""

from .. import work
from ..bench import Bench, wait_until
from ..systems import System
from .base import Column, Figures, Measure

PER_SECOND = 100
#: What the task has when it names none.
BURST = 10
SECONDS = 30
PROCESSES = 4


def run(system: System, bench: Bench) -> Figures:
    """Send what takes so long at the limit, at once, and look at when each call started."""
    system.prepare(bench)
    count = PER_SECOND * SECONDS + BURST
    workers = system.start(bench, processes=PROCESSES)
    try:
        system.greet(bench, workers)
        cpu = workers.cpu_seconds()
        system.act(bench, "limited", count=count)
        wait_until(
            lambda: bench.stamps.read_bytes().count(b"\n") >= count,
            f"{count} limited tasks to start",
            2 * SECONDS,
            workers,
            every=0.2,
        )
        used = workers.cpu_seconds() - cpu
    finally:
        workers.stop()
    starts = sorted(moment / 1e9 for _, moment in work.read_stamps(bench.stamps))
    # Without the burst: what is left is a rate.
    elapsed = starts[-1] - starts[BURST]
    return {
        "rate": (len(starts) - BURST - 1) / elapsed,
        "window": float(most_within(starts, 1.0)),
        "allowed": float(PER_SECOND + BURST),
        "calls": float(len(starts)),
        "cpu": used,
    }


def most_within(starts: list[float], seconds: float) -> int:
    """Return how many starts the fullest window of so many seconds has; they are in order."""
    most = first = 0
    for last, moment in enumerate(starts):
        while moment - starts[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


MEASURE = Measure(
    name="rate",
    title=f"A limit of {PER_SECOND}/s over {PROCESSES} processes, for {SECONDS} s",
    run=run,
    columns=(
        Column("rate", "starts/s", 2),
        Column("window", "most in a second"),
        Column("allowed", "allowed"),
        Column("calls", "calls"),
        Column("cpu", "CPU s", 1),
    ),
    systems=("jobsite",),
)
