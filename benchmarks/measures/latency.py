"""How long an idle worker takes to start a task, to answer, and how late countdowns are."""

from .. import work
from ..bench import Bench, Workers, wait_until
from ..systems import System
from .base import Column, Figures, Measure, percentile

SAMPLES = 250
TRIPS = 200
COUNTDOWNS = 200


def run(system: System, bench: Bench) -> Figures:
    """Measure the three with one start of the workers."""
    system.prepare(bench)
    answers = system.results and system.answers
    workers = system.start(bench)
    try:
        system.greet(bench, workers)
        figures = _named("start", _lateness(system, bench, workers, "stamps", SAMPLES))
        figures |= _named("trip", _trips(system, bench) if answers else [])
        figures |= _named("late", _countdowns(system, bench, workers))
    finally:
        workers.stop()
    return figures


def _named(name: str, values: list[float]) -> Figures:
    if not values:
        return {f"{name}_{key}": None for key in ("min", "p50", "p99", "max")}
    return {
        f"{name}_min": min(values),
        f"{name}_p50": percentile(values, 0.5),
        f"{name}_p99": percentile(values, 0.99),
        f"{name}_max": max(values),
    }


def _lateness(
    system: System, bench: Bench, workers: Workers, action: str, count: int
) -> list[float]:
    """Return by how many ms each of ``count`` tasks (or fewer) started after it was meant to."""
    bench.stamps.write_bytes(b"")
    answer = system.act(bench, action, count=count)
    sent = answer if isinstance(answer, int) else count
    wait_until(
        lambda: bench.stamps.read_bytes().count(b"\n") >= sent,
        f"{sent} tasks of {system.name} to start",
        30,
        workers,
    )
    return [(moment - mark) / 1e6 for mark, moment in work.read_stamps(bench.stamps)]


def _trips(system: System, bench: Bench) -> list[float]:
    answer = system.act(bench, "round_trips", count=TRIPS)
    assert isinstance(answer, list)
    return answer


def _countdowns(system: System, bench: Bench, workers: Workers) -> list[float]:
    if not system.countdowns:
        return []
    return _lateness(system, bench, workers, "countdowns", COUNTDOWNS)


MEASURE = Measure(
    name="latency",
    title="Latency in ms with an idle worker of two processes",
    run=run,
    columns=(
        Column("start_p50", "start p50", 2),
        Column("start_p99", "p99", 2),
        Column("start_max", "max", 1),
        Column("trip_p50", "round trip p50", 2),
        Column("trip_p99", "p99", 2),
        Column("late_min", "countdown late min", 1),
        Column("late_p50", "p50", 1),
        Column("late_p99", "p99", 1),
        Column("late_max", "max", 1),
    ),
    systems=(
        "jobsite",
        "jobsite-sqlite",
        "jobsite-postgres",
        "celery",
        "celery-redis",
        "celery-postgres",
        "dramatiq-redis",
        "huey",
        "huey-redis",
        "rq-redis",
        "taskiq-redis",
        "arq-redis",
        "saq-redis",
        "streaq-redis",
        "procrastinate",
        "django-q2",
        "django-tasks-db",
    ),
    ratios=(("start_p50", "celery"), ("start_p50", "huey")),
)
