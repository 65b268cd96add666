"""What it costs that the tenants of a queue take turns."""

from typing import cast

from ..bench import Bench
from ..systems import System
from . import throughput
from .base import Column, Figures, Measure

#: So many have calls in the backlog that is drained.
DRAINED = 1_000
#: How many wait while claims are measured; 0: the messages are nobody's.
WAITING = (0, 1, 10, 1_000, 100_000)


def run(system: System, bench: Bench) -> Figures:
    """Drain a backlog of nobody's calls, then one of a thousand tenants; then look at claims."""
    found: Figures = {}
    for name, tenants in (("plain", 0), ("turns", DRAINED)):
        drained = throughput.run(system, bench, tenants)
        assert drained["cpu"]
        assert drained["server_cpu"]
        found |= {
            name: drained["rate"],
            f"{name}_cpu": drained["cpu"],
            f"{name}_server": drained["server_cpu"],
            f"{name}_both": drained["cpu"] + drained["server_cpu"],
        }
    found["ratio"] = _share(found["turns"], found["plain"])
    # Where workers and Redis share the cores, as here, this is the same without other programs.
    found["cpu_ratio"] = _share(found["plain_both"], found["turns_both"])
    system.prepare(bench)
    spent = cast("dict[str, float]", system.act(bench, "claims", tenants=WAITING))
    found |= {f"claim_{what}": us for what, us in spent.items()}
    system.prepare(bench)
    found["overtaken"] = cast("int", system.act(bench, "overtaken"))
    return found


def _share(one: float | None, other: float | None) -> float:
    assert one
    assert other
    return one / other


MEASURE = Measure(
    name="fair",
    title=f"Draining with {DRAINED:,} tenants in turns, and what claims cost Redis",
    run=run,
    columns=(
        Column("plain", "tasks/s, nobody's"),
        Column("turns", "in turns"),
        Column("ratio", "in turns ÷ nobody's", 2),
        Column("plain_cpu", "CPU µs/task, nobody's"),
        Column("turns_cpu", "in turns"),
        Column("plain_server", "Redis CPU µs/task, nobody's", 1),
        Column("turns_server", "in turns", 1),
        Column("cpu_ratio", "CPU, nobody's ÷ in turns", 2),
        *(
            Column(f"claim_{size}_{tenants}", f"claim of {size} µs, {tenants:,} tenants", 1)
            for size in (1, 100)
            for tenants in WAITING
        ),
        Column("overtaken", "claims until another's turn"),
    ),
    systems=("jobsite",),
)
