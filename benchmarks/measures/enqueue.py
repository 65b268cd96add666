"""How many messages a second one process sends, one by one and in bulk."""

from ..bench import Bench
from ..systems import System
from .base import Column, Figures, Measure

SINGLES = 10_000
BULK = 50_000


def run(system: System, bench: Bench) -> Figures:
    """Send with no worker running, so that nothing else uses the machine."""
    system.prepare(bench)
    singles = max(1000, int(SINGLES * bench.scale))
    bulk = max(5000, int(BULK * bench.scale))
    answer = system.act(bench, "enqueue", singles=singles, bulk=bulk)
    assert isinstance(answer, dict)
    length = _message_bytes(bench)
    if not system.peer and length:
        bench.message_bytes = int(length)  # what the bare pipeline, measured next, sends
    return {**answer, "bytes": length}


def _message_bytes(bench: Bench) -> float | None:
    """Return the length of one waiting message, where the queue is a list."""
    for key in ("bench", "huey.redis.bench"):
        if bench.valkey.client.type(key) == b"list":
            message = bench.valkey.client.lindex(key, 0)
            return float(len(message)) if message else None
    return None


MEASURE = Measure(
    name="enqueue",
    title="Sending, one process, no worker running",
    run=run,
    columns=(
        Column("single", "one by one/s"),
        Column("bulk", "in bulk/s"),
        Column("bytes", "bytes a message"),
    ),
    systems=(
        "jobsite",
        "redis-py pipeline",
        "celery",
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
    ratios=(
        ("single", "fastest peer"),
        ("single", "huey"),
        ("single", "celery"),
        ("bulk", "redis-py pipeline"),
    ),
)
