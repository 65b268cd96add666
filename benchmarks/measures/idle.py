"""What a worker of two processes uses while there is nothing to do."""

import time

from ..bench import Bench
from ..systems import System
from .base import Column, Figures, Measure

SECONDS = 30
#: For what happens once after a start to be over.
CALM_SECONDS = 3


def run(system: System, bench: Bench) -> Figures:
    """Start the workers, let them run a few tasks, and watch them do nothing."""
    system.prepare(bench)
    workers = system.start(bench)
    try:
        system.greet(bench, workers)
        time.sleep(CALM_SECONDS)
        # As seen by Redis as a whole: what blocks on it, and its scripts, are counted as well.
        before, cpu, started = bench.valkey.processed(), workers.cpu_seconds(), time.monotonic()
        time.sleep(SECONDS)
        after, used = bench.valkey.processed(), workers.cpu_seconds() - cpu
        elapsed = time.monotonic() - started
        workers.check_alive()
        memory, processes = workers.pss_bytes(), len(workers.family())
    finally:
        workers.stop()
    own = 1  # the INFO of the first look
    return {
        "cpu": used / elapsed * 60,
        "commands": (after - before - own) / elapsed,
        "memory": memory / 1e6,
        "processes": processes,
    }


MEASURE = Measure(
    name="idle",
    title=f"A worker of two processes with nothing to do, over {SECONDS} s",
    run=run,
    columns=(
        Column("cpu", "CPU s/minute", 3),
        Column("commands", "Redis cmds/s", 1),
        Column("memory", "memory (PSS) MB"),
        Column("processes", "processes"),
    ),
    systems=(
        "jobsite",
        "celery",
        "celery-postgres",
        "dramatiq",
        "huey",
        "rq",
        "taskiq",
        "arq",
        "saq",
        "streaq",
        "procrastinate",
        "django-q2",
        "django-tasks-db",
    ),
)
