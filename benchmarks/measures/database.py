"""What a call costs PostgreSQL: CPU time, and bytes of its log of writes."""

from collections.abc import Callable
from functools import partial

from ..bench import Bench, wait_until
from ..systems import System
from .base import Column, Figures, Measure

COUNT = 5_000
BACKLOG = 20_000


def run(system: System, bench: Bench) -> Figures:
    """Record a backlog; send in transactions; record what was sent so."""
    system.prepare(bench)
    system.act(bench, "fill", count=BACKLOG)
    found = _spent(bench, BACKLOG, "new", partial(_drain, system, bench, BACKLOG))
    send = partial(system.act, bench, "send_in_transactions", count=COUNT)
    found |= _spent(bench, COUNT, "sent", send)
    found |= _spent(bench, COUNT, "ended", partial(_drain, system, bench, BACKLOG + COUNT))
    return found


def _spent(bench: Bench, count: int, name: str, act: Callable[[], object]) -> Figures:
    assert bench.postgres
    cpu, written = bench.postgres.cpu_seconds(), bench.postgres.written()
    act()
    return {
        f"{name}_cpu": (bench.postgres.cpu_seconds() - cpu) / count * 1e6,
        f"{name}_bytes": (bench.postgres.written() - written) / count,
    }


def _drain(system: System, bench: Bench, total: int) -> None:
    workers = system.start(bench)
    try:
        # Counting reads all rows: seldom.
        wait_until(
            lambda: not system.waiting(bench) and system.recorded(bench) == total,
            f"{total} ends",
            120,
            workers,
            every=0.5,
        )
    finally:
        workers.stop()


MEASURE = Measure(
    name="database",
    title="What a call costs PostgreSQL",
    run=run,
    columns=(
        Column("new_cpu", "sent outside a transaction, recorded: CPU µs"),
        Column("new_bytes", "bytes written"),
        Column("sent_cpu", "sent in a transaction: CPU µs"),
        Column("sent_bytes", "bytes written"),
        Column("ended_cpu", "its end recorded: CPU µs"),
        Column("ended_bytes", "bytes written"),
    ),
    systems=("jobsite-postgres",),
)
