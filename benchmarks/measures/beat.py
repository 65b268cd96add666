"""How exactly, and how soon, a beat sends, with many schedules."""

import time
from collections.abc import Callable

from ..beats import EDITED, Arrivals
from ..bench import Bench, BenchmarkError, Workers, wait_until
from ..systems import System
from .base import Column, Figures, Measure, percentile

SCHEDULES = 100_000
#: Schedules with an interval of a second.
TICKING = 20
#: Schedules that are due in the same second.
BURST = 1_000
DRIFT_SECONDS = 20
IDLE_SECONDS = 15
#: From the edit that gathers them to the second in which they are due.
AHEAD_SECONDS = 20
START_SECONDS = 180
#: What takes longer has no figure.
MOST_SECONDS = 120


def run(system: System, bench: Bench) -> Figures:
    """Start a beat that has a hundred thousand schedules, and look at what it sends when."""
    count = max(int(SCHEDULES * bench.scale), BURST)
    system.prepare(bench)
    system.act(bench, "schedules", verb="make_schedules", count=count, ticking=TICKING)
    arrivals = Arrivals(bench.valkey.url)
    spawned = time.time()
    beat = system.start(bench)
    try:
        figures: Figures = {"start": _start(arrivals, beat) - spawned}
        time.sleep(2)
        figures |= _drift(arrivals)
        figures["edit"] = _edit(system, bench, arrivals, beat)
        system.act(bench, "schedules", verb="calm")
        figures["burst"] = _burst(system, bench, arrivals, beat)
        figures |= _idle(beat)
    finally:
        beat.stop()
        arrivals.close()
    return figures


def _start(arrivals: Arrivals, beat: Workers) -> float:
    wait_until(lambda: arrivals.count("tick") > 0, "the first message", START_SECONDS, beat)
    return min(found[0] for name, found in arrivals.times.items() if name.startswith("tick"))


def _drift(arrivals: Arrivals) -> Figures:
    """Each second one message of each schedule: how much later it comes than its first one says,
    and how many don't come at all."""
    begin = time.time()
    time.sleep(DRIFT_SECONDS)
    late: list[float] = []
    missing = 0
    for name, times in list(arrivals.times.items()):
        found = [at for at in times if begin <= at < begin + DRIFT_SECONDS]
        if name.startswith("tick") and found:
            missing += round(found[-1] - found[0]) + 1 - len(found)
            origin = min(at - n for n, at in enumerate(found))
            late += [(at - n - origin) * 1000 for n, at in enumerate(found)]
    if not late:
        raise BenchmarkError(f"Nothing came within {DRIFT_SECONDS} s.")
    return {
        "drift50": percentile(late, 0.5),
        "drift99": percentile(late, 0.99),
        "missing": float(missing),
    }


def _edit(system: System, bench: Bench, arrivals: Arrivals, beat: Workers) -> float | None:
    edited = system.act(bench, "schedules", verb="edit")
    assert isinstance(edited, float)
    if not _happens(lambda: bool(arrivals.times.get(EDITED)), beat):
        return None
    return arrivals.times[EDITED][0] - edited


def _burst(system: System, bench: Bench, arrivals: Arrivals, beat: Workers) -> float | None:
    at = float(int(time.time() + AHEAD_SECONDS))
    system.act(bench, "schedules", verb="gather", count=BURST, at=at)
    if not _happens(lambda: arrivals.count("schedule") >= BURST, beat):
        return None
    return max(found[-1] for name, found in arrivals.times.items() if name.startswith("sch")) - at


def _happens(condition: Callable[[], bool], beat: Workers) -> bool:
    """Whether it does within MOST_SECONDS."""
    deadline = time.monotonic() + MOST_SECONDS
    while not condition() and time.monotonic() < deadline:
        beat.check_alive()
        time.sleep(0.02)
    return condition()


def _idle(beat: Workers) -> Figures:
    time.sleep(2)
    before, started = beat.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    beat.check_alive()
    used = beat.cpu_seconds() - before
    return {
        "cpu": used / (time.monotonic() - started) * 60,
        "memory": beat.pss_bytes() / 1e6,
    }


MEASURE = Measure(
    name="beat",
    title=f"One beat with {SCHEDULES:,} schedules (times --tasks in proportion)",
    run=run,
    columns=(
        Column("start", "start s", 2),
        Column("drift50", "late ms p50", 1),
        Column("drift99", "late ms p99", 1),
        Column("missing", f"missing of {TICKING * DRIFT_SECONDS}"),
        Column("edit", "edit to send s", 2),
        Column("burst", f"{BURST:,} due at once s", 2),
        Column("cpu", "idle CPU s/minute", 2),
        Column("memory", "memory (PSS) MB"),
    ),
    systems=("beat-postgres", "beat-sqlite", "django-celery-beat", "redbeat"),
    needs_postgres=True,
)
