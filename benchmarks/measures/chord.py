"""What it costs to join a group: a chord of no-op members beside the group alone."""

from statistics import median

from ..bench import Bench
from ..systems import System
from .base import Column, Figures, Measure

MEMBERS = 10_000
#: Of each kind, in turn.
TIMES = 3


def run(system: System, bench: Bench) -> Figures:
    """Send a group and a chord in turn, to workers that have nothing else to do."""
    count = max(1, int(MEMBERS * bench.scale))
    system.prepare(bench)
    workers = system.start(bench)
    found: dict[str, list[float]] = {}
    try:
        system.greet(bench, workers)
        for _ in range(TIMES):
            for what in ("group", "chord"):
                answer = system.act(bench, "compose", what=what, count=count)
                assert isinstance(answer, dict)
                for name, seconds in answer.items():
                    found.setdefault(f"{what}_{name}", []).append(seconds)
    finally:
        workers.stop()
    figures: Figures = {name: median(values) for name, values in found.items()}
    ratios = zip(found["chord_ended"], found["group_ended"], strict=True)
    figures["ratio"] = median(chord / group for chord, group in ratios)
    figures["members"] = count
    return figures


MEASURE = Measure(
    name="chord",
    title=f"Chord and group of {MEMBERS:,} no-op members (times --tasks in proportion)",
    run=run,
    columns=(
        Column("group_sent", "group sent s", 2),
        Column("group_ended", "ended s", 2),
        Column("chord_sent", "chord sent s", 2),
        Column("chord_ended", "body ended s", 2),
        Column("ratio", "chord ÷ group", 2),
        Column("members", "members"),
    ),
    systems=("jobsite-postgres", "jobsite-sqlite"),
)
