"""How fast two worker processes drain a backlog, and what one task costs them and Redis."""

import time
from dataclasses import dataclass

from .. import work
from ..bench import Bench, BenchmarkError, Workers, wait_until
from ..systems import System
from .base import Column, Figures, Measure

DRAIN_SECONDS = 180
#: Stamps a backlog leaves. The clock runs from the stamp at a tenth of it.
STAMPS = 100
SKIPPED = 10


@dataclass
class Snapshot:
    """What had been used when so many tasks had been started."""

    tasks: int
    cpu: float
    commands: int
    server_cpu: float


def run(system: System, bench: Bench, tenants: int | None = None) -> Figures:
    """Fill a backlog, start the workers, and take the time from a tenth of it to its end.

    ``tenants``: how many have calls in it in turn, of a task that knows tenants; 0: nobody.

    The end is when Redis holds nothing more of it, and the database every result (if there is
    one): recorded and acknowledged, not merely run.
    """
    stride = max(1, int(system.backlog * bench.scale) // STAMPS)
    total = stride * STAMPS + 1  # so that the last one leaves a stamp, as the first does
    system.prepare(bench)
    sent_in = system.act(bench, "fill", stride=stride, count=total, tenants=tenants)
    workers = system.start(bench, stride=stride)
    try:
        first = _first_tenth(system, bench, workers, stride)
        _all_started(system, bench, workers)
        ended = _settled(system, bench, workers, total)
        commands, server_cpu = bench.valkey.commands(), bench.valkey.cpu_seconds()
        last = Snapshot(total, workers.cpu_seconds(), commands, server_cpu)
    finally:
        workers.stop()
    stamps = work.read_stamps(bench.stamps)
    kept = _checked(system, bench, total, stride, stamps)
    begun = dict(stamps)[stride * SKIPPED]
    seconds = (ended - begun) / 1e9
    tasks = last.tasks - first.tasks
    return {
        "rate": (total - stride * SKIPPED) / seconds,
        "cpu": (last.cpu - first.cpu) / tasks * 1e6,
        "commands": (last.commands - first.commands) / tasks,
        "server_cpu": (last.server_cpu - first.server_cpu) / tasks * 1e6,
        "settle": (ended - max(moment for _, moment in stamps)) / 1e6,
        "seconds": seconds,
        "tasks": total,
        "fill_rate": total / float(str(sent_in)),
        "kept": kept,
    }


def _checked(
    system: System, bench: Bench, total: int, stride: int, stamps: list[tuple[int, int]]
) -> int | None:
    """Return for how many calls an end is kept (None: this system keeps none).

    Raises `BenchmarkError` unless it is one for each call, no message is left, and every task with
    a stamp has run: once, for this program. Some peers run a task twice when the machine is busy.
    """
    marks = [mark for mark, _ in stamps]
    if set(marks) != set(range(0, total, stride)) or (len(marks) > STAMPS + 1 and not system.peer):
        raise BenchmarkError(f"{system.name} ran tasks twice, or not at all: {marks}.")
    if left := system.waiting(bench):
        raise BenchmarkError(f"{system.name} left {left} messages on the server.")
    kept = system.kept(bench)
    if kept not in (None, total):
        raise BenchmarkError(f"{system.name} was sent {total} tasks, and kept the ends of {kept}.")
    return kept


def _first_tenth(system: System, bench: Bench, workers: Workers, stride: int) -> Snapshot:
    wait_until(
        lambda: any(mark == stride * SKIPPED for mark, _ in work.read_stamps(bench.stamps)),
        f"a tenth of the backlog of {system.name}",
        DRAIN_SECONDS,
        workers,
        every=0.05,
    )
    commands, server_cpu = bench.valkey.commands(), bench.valkey.cpu_seconds()
    cpu = workers.cpu_seconds()
    started = max(mark for mark, _ in work.read_stamps(bench.stamps))
    return Snapshot(started, cpu, commands, server_cpu)


def _all_started(system: System, bench: Bench, workers: Workers) -> None:
    wait_until(
        lambda: bench.stamps.read_bytes().count(b"\n") > STAMPS,
        f"the backlog of {system.name} to drain",
        DRAIN_SECONDS,
        workers,
    )


def _settled(system: System, bench: Bench, workers: Workers, total: int) -> int:
    """Return the time (ns) at which nothing was left."""
    if _done(system, bench, total):
        # At the first look already: somewhen between the last stamp and this look, 20 ms at most.
        return max(moment for _, moment in work.read_stamps(bench.stamps))
    wait_until(
        lambda: _done(system, bench, total), f"{system.name} to settle", 60, workers, every=0.01
    )
    return time.time_ns()


def _done(system: System, bench: Bench, total: int) -> bool:
    if system.waiting(bench):
        return False
    recorded = system.recorded(bench)
    return recorded is None or recorded >= total


#: What a drain costs.
DRAIN = (
    Column("rate", "tasks/s"),
    Column("cpu", "CPU µs/task"),
    Column("commands", "Redis cmds/task", 2),
    Column("server_cpu", "Redis CPU µs/task", 1),
)

MEASURE = Measure(
    name="throughput",
    title="Throughput: draining a backlog of no-op tasks, two worker processes",
    run=run,
    columns=(
        *DRAIN,
        Column("settle", "settled ms"),
        Column("seconds", "measured s", 1),
        Column("tasks", "backlog"),
        Column("fill_rate", "filled/s"),
        Column("kept", "ends kept"),
    ),
    systems=(
        "jobsite",
        "jobsite-sqlite",
        "jobsite-postgres",
        "celery",
        "celery-redis",
        "celery-sqlite",
        "celery-postgres",
        "celery-postgres-closing",
        "celery-threads",
        "celery-threads-redis",
        "celery-threads-sqlite",
        "celery-threads-postgres",
        "dramatiq",
        "dramatiq-redis",
        "huey",
        "rq",
        "rq-redis",
        "taskiq",
        "taskiq-redis",
        "arq",
        "arq-redis",
        "saq",
        "saq-redis",
        "streaq",
        "streaq-redis",
        "procrastinate",
        "django-q2",
        "django-tasks-db",
        "loop",
        "loop-sqlite",
        "loop-postgres",
    ),
    ratios=(("rate", "fastest peer"), ("rate", "celery"), ("rate", "celery likewise")),
)
