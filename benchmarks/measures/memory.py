"""Whether one worker process grows with the number of tasks it has run."""

from ..bench import Bench, Workers, wait_until
from ..systems import System
from .base import Column, Figures, Measure

FEW = 10_000
MANY = 100_000
DRAIN_SECONDS = 300


def run(system: System, bench: Bench) -> Figures:
    """Compare its memory after FEW tasks with that after MANY more.

    Both rounds are cut down alike for systems that would take minutes (by their backlog).
    """
    share = min(1.0, system.backlog * 3 / MANY) * bench.scale
    few, many = max(100, int(FEW * share)), max(1000, int(MANY * share))
    system.prepare(bench)
    workers = system.start(bench, processes=1)
    try:
        system.greet(bench, workers)
        before = _after(system, bench, workers, few, few)
        after = _after(system, bench, workers, many, few + many)
    finally:
        workers.stop()
    return {
        "few": before / 1e6,
        "many": after / 1e6,
        "growth": (after / before - 1) * 100,
        "tasks": few + many,
    }


def _after(system: System, bench: Bench, workers: Workers, count: int, total: int) -> int:
    system.act(bench, "fill", count=count)

    def done() -> bool:
        recorded = system.recorded(bench)
        return not system.waiting(bench) and (recorded is None or recorded >= total)

    wait_until(done, f"{count} tasks of {system.name}", DRAIN_SECONDS, workers, every=0.2)
    return workers.largest_rss_bytes()


MEASURE = Measure(
    name="memory",
    title="Memory of one worker process: the resident set of its largest process",
    run=run,
    columns=(
        Column("few", "after the first MB", 1),
        Column("many", "at the end MB", 1),
        Column("growth", "growth %", 1),
        Column("tasks", "tasks"),
    ),
    systems=("jobsite", "jobsite-postgres", "celery", "dramatiq", "huey", "taskiq"),
)
