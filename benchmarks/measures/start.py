"""What a worker's children cost: time to start, CPU and memory."""

import statistics
import time

import psutil

from ..bench import Bench, Workers, wait_until
from ..systems import System
from ..work import read_stamps
from .base import Column, Figures, Measure

MANY = 16
START_SECONDS = 180
#: For what happens once after a start to be over.
CALM_SECONDS = 2
KILLS = 7
#: A child that dies sooner is replaced after a pause, so as not to start one after the other.
LIVED_SECONDS = 5.5
WAITING = 20


def run(system: System, bench: Bench) -> Figures:
    """Start workers of 1, 2 and MANY children; then kill the only child of one, again and again."""
    cpu_one, _ = _started(system, bench, 1)
    _, memory_two = _started(system, bench, 2)
    cpu_many, memory_many = _started(system, bench, MANY)
    late = _successors(system, bench)
    return {
        "one": cpu_one,
        "many": cpu_many,
        "times": cpu_many / cpu_one,
        "memory": memory_two / 1e6,
        "further": (memory_many - memory_two) / (MANY - 2) / 1e6,
        "median": statistics.median(late),
        "worst": max(late),
    }


def _ready(workers: Workers) -> None:
    def said() -> bool:
        return b"is ready" in workers.log.read_bytes()

    wait_until(said, "all children to claim", START_SECONDS, workers)


def _started(system: System, bench: Bench, processes: int) -> tuple[float, int]:
    """CPU seconds and bytes of a worker that has just started."""
    system.prepare(bench)
    workers = system.start(bench, processes=processes)
    try:
        _ready(workers)
        time.sleep(CALM_SECONDS)
        return workers.cpu_seconds(), workers.pss_bytes()
    finally:
        workers.stop()


def _successors(system: System, bench: Bench) -> list[float]:
    """Milliseconds from the kill of a child to the first task that its successor runs.

    The child is stopped while messages are sent, so that they wait when it is killed.
    """
    system.prepare(bench)
    workers = system.start(bench, processes=1, stride=1)
    late = []
    try:
        _ready(workers)
        for _ in range(KILLS):
            time.sleep(LIVED_SECONDS)
            child = _child(workers)
            child.suspend()
            system.act(bench, "fill", count=WAITING)
            killed = time.time_ns()
            child.kill()
            wait_until(lambda: bool(read_stamps(bench.stamps)), "a task to run", 60, workers)
            late.append((read_stamps(bench.stamps)[0][1] - killed) / 1e6)
            wait_until(lambda: not system.waiting(bench), "all of them to run", 60, workers)
            bench.stamps.write_bytes(b"")
    finally:
        workers.stop()
    return late


def _child(workers: Workers) -> psutil.Process:
    """The only process of the worker that runs tasks: the one with the most threads."""
    below = psutil.Process(workers.roots[0].pid).children()
    return max(below, key=lambda process: process.num_threads())


MEASURE = Measure(
    name="start",
    title=f"Start of a worker with Django's admin: 1 child, {MANY} children, and successors",
    run=run,
    columns=(
        Column("one", "1 child CPU s", 2),
        Column("many", f"{MANY} children CPU s", 2),
        Column("times", "ratio", 2),
        Column("memory", "2 children (PSS) MB"),
        Column("further", "each further MB", 1),
        Column("median", "successor p50 ms", 1),
        Column("worst", "worst ms", 1),
    ),
    systems=("jobsite-admin", "jobsite-admin-fresh"),
)
