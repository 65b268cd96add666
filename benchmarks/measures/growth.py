"""What grows with the size of things: the same work at several sizes, as a curve.

Each subject is measured at its sizes in turn. Counts and CPU time decide, since they say the same
on a busy machine: commands and bytes of Redis, and CPU time of the workers and of the server.
``--large`` adds the largest sizes.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import work
from ..bench import Bench, Workers, agent, interpreter, start_workers, wait_until
from ..systems import System
from .base import Column, Figures, Measure, percentile

#: Seconds in which an idle worker is watched: three renewals of its leases.
IDLE_SECONDS = 15
#: For what happens once after a start to be over.
CALM_SECONDS = 6
#: How often the last queue is sent to, while the worker has nothing else to do.
STARTS = 40
#: How many messages simulated workers take, and how many a second are sent.
TAKEN, RATE = 1_000, 200
#: How much of a backlog is drained.
DRAINED = 20_000
LONGEST_SECONDS = 240


@dataclass(frozen=True)
class Subject:
    """Something that is measured at several sizes. ``large``: further ones, for ``--large``."""

    name: str
    run: Callable[[System, Bench, int], Figures]
    sizes: tuple[int, ...]
    large: tuple[int, ...] = ()
    columns: tuple[Column, ...] = field(default=())


@dataclass
class Used:
    """What had been used at some moment."""

    cpu: float
    server_cpu: float
    commands: int
    received: int

    @classmethod
    def now(cls, bench: Bench, workers: Workers | None) -> "Used":
        info = bench.valkey.client.info()
        return cls(
            workers.cpu_seconds() if workers else 0.0,
            info["used_cpu_user"] + info["used_cpu_sys"],
            info["total_commands_processed"],
            info["total_net_input_bytes"],
        )


def _queues(system: System, bench: Bench, size: int) -> Figures:
    """A worker of so many queues: what it costs while it is idle, and how soon the last one's
    messages start."""
    system.prepare(bench)
    names = ["bench", *(f"bench-{number}" for number in range(1, size))]
    env = {**system.environment(bench), "BENCH_QUEUES": str(size)}
    command = ["manage.py", "runworker", "--queues", ",".join(names), "--processes", "2"]
    python = interpreter(system.apart)
    workers = start_workers(bench, python, [command], env)
    try:
        system.greet(bench, workers)
        time.sleep(CALM_SECONDS)
        before, started = Used.now(bench, workers), time.monotonic()
        time.sleep(IDLE_SECONDS)
        after = Used.now(bench, workers)
        elapsed = time.monotonic() - started
        agent(bench, python, system.app, "stamps_on", env, queue=names[-1], count=STARTS)
        stamps = work.read_stamps(bench.stamps)
    finally:
        workers.stop()
    waits = [(at - sent) / 1e6 for sent, at in stamps]
    return {
        "commands": (after.commands - before.commands - 1) / elapsed,
        "cpu": (after.cpu - before.cpu) / elapsed * 60,
        "server": (after.server_cpu - before.server_cpu) / elapsed * 60,
        "start": percentile(waits, 0.5),
    }


def _workers(system: System, bench: Bench, size: int) -> Figures:
    """So many simulated workers of one queue: what each costs while nothing is sent, and what a
    message costs that one of them takes."""
    system.prepare(bench)
    python, redis = interpreter(system.apart), bench.valkey.client
    command = ["-m", "benchmarks.consumers", str(size)]
    workers = start_workers(bench, python, [command], system.environment(bench))
    try:
        wait_until(
            lambda: redis.hlen("{bench}:workers") == size,
            f"{size} simulated workers to report",
            LONGEST_SECONDS,
            workers,
        )
        before, started = Used.now(bench, workers), time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle, elapsed = Used.now(bench, workers), time.monotonic() - started
        system.act(bench, "send_slowly", count=TAKEN, rate=RATE)
        # Not `system.waiting`, which looks at the keys of each worker.
        wait_until(lambda: redis.llen("bench") == 0, "all to be taken", 60, workers, every=0.2)
        after, ended = Used.now(bench, workers), time.monotonic()
    finally:
        workers.stop()
    per_minute = 60 / elapsed / size * 1000
    # What they would have cost in that time anyhow.
    rest = (idle.server_cpu - before.server_cpu) / elapsed * (ended - started - elapsed)
    return {
        "commands": (idle.commands - before.commands - 1) / elapsed / size,
        "cpu": (idle.cpu - before.cpu) * per_minute,
        "server": (idle.server_cpu - before.server_cpu) * per_minute,
        "each": (after.server_cpu - idle.server_cpu - rest) / TAKEN * 1e6,
    }


def _composed(what: str) -> Callable[[System, Bench, int], Figures]:
    def run(system: System, bench: Bench, size: int) -> Figures:
        """A chain, group or chord of so many no-ops, from the sending to its recorded end."""
        system.prepare(bench)
        workers = system.start(bench)
        try:
            system.greet(bench, workers)
            before = Used.now(bench, workers)
            answer = system.act(bench, "compose", what=what, count=size)
            after = Used.now(bench, workers)
        finally:
            workers.stop()
        assert isinstance(answer, dict)
        return {
            "sent": answer["sent_cpu"] / size * 1e6,
            "memory": answer["memory"] / size,
            "cpu": (after.cpu - before.cpu) / size * 1e6,
            "server": (after.server_cpu - before.server_cpu) / size * 1e6,
            "bytes": (after.received - before.received) / size,
        }

    return run


def _drained(where: str) -> Callable[[System, Bench, int], Figures]:
    def run(system: System, bench: Bench, size: int) -> Figures:
        """What each of `DRAINED` messages costs: of a backlog of so many that *wait*, or are *due*
        since a moment ago, or beside so many others that are due *tomorrow*."""
        system.prepare(bench)
        if where == "tomorrow":
            system.act(bench, "fill_later", count=size)
        action = "fill_due" if where == "due" else "fill"
        system.act(bench, action, count=DRAINED if where == "tomorrow" else size, first=1)
        stride = DRAINED // 20
        workers = system.start(bench, stride=stride)
        try:
            marks, used = [], []
            for wanted in (stride, DRAINED - stride):
                wait_until(
                    lambda wanted=wanted: _reached(bench) >= wanted,
                    f"{wanted} tasks to start",
                    LONGEST_SECONDS,
                    workers,
                )
                used.append(Used.now(bench, workers))
                marks.append(_reached(bench))
        finally:
            workers.stop()
        count = marks[1] - marks[0]
        return {
            "cpu": (used[1].cpu - used[0].cpu) / count * 1e6,
            "server": (used[1].server_cpu - used[0].server_cpu) / count * 1e6,
        }

    return run


def _reached(bench: Bench) -> int:
    return max((number for number, _ in work.read_stamps(bench.stamps)), default=0)


_OF_COMPOSED = (
    Column("sent", "sender CPU µs each"),
    Column("memory", "sender bytes each"),
    Column("cpu", "worker CPU µs each"),
    Column("server", "Redis CPU µs each", 1),
    Column("bytes", "bytes to Redis each"),
)
_OF_DRAINED = (Column("cpu", "worker CPU µs each", 1), Column("server", "Redis CPU µs each", 1))

SUBJECTS = (
    Subject(
        "queues of an idle worker",
        _queues,
        (1, 100, 500),
        (1000,),
        (
            Column("commands", "Redis cmds/s", 1),
            Column("cpu", "CPU s/minute", 2),
            Column("server", "Redis CPU s/minute", 2),
            Column("start", "start p50 ms", 2),
        ),
    ),
    Subject("calls of a chain", _composed("chain"), (30, 100, 300), (1000,), _OF_COMPOSED),
    Subject("members of a group", _composed("group"), (1000, 10_000), (100_000,), _OF_COMPOSED),
    Subject("members of a chord", _composed("chord"), (1000, 10_000), (100_000,), _OF_COMPOSED),
    Subject("messages that wait", _drained("wait"), (20_000, 200_000), (1_000_000,), _OF_DRAINED),
    Subject("due now", _drained("due"), (20_000, 200_000), (1_000_000,), _OF_DRAINED),
    Subject("due tomorrow", _drained("tomorrow"), (1000, 50_000), (1_000_000,), _OF_DRAINED),
    Subject(
        "workers of a queue",
        _workers,
        (10, 100),
        (500,),
        (
            Column("commands", "Redis cmds/s each", 1),
            Column("cpu", "CPU ms/minute each", 1),
            Column("server", "Redis CPU ms/minute each", 1),
            Column("each", "Redis CPU µs a message", 1),
        ),
    ),
)


def run(system: System, bench: Bench) -> Figures:
    """Measure each subject at each of its sizes; the figures' keys say of what."""
    found: Figures = {}
    for subject in SUBJECTS:
        if bench.subjects and not any(word in subject.name for word in bench.subjects):
            continue
        for size in (*subject.sizes, *(subject.large if bench.large else ())):
            print(f"  {subject.name}: {size:,} …", file=sys.stderr, flush=True)
            figures = subject.run(system, bench, size)
            found |= {f"{subject.name}/{size}/{key}": value for key, value in figures.items()}
    return found


MEASURE = Measure(
    name="growth",
    title="What grows with the size of things",
    run=run,
    columns=tuple(
        Column(f"{subject.name}/{size}/{column.key}", column.title, column.digits)
        for subject in SUBJECTS
        for size in (*subject.sizes, *subject.large)
        for column in subject.columns
    ),
    systems=("jobsite-sqlite",),
    curves=True,
)
