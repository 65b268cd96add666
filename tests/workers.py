"""Workers for tests: the real one, in this process or in processes of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from jobs import broker, conf, message
from jobs.broker.base import DeadLetter, Outgoing
from jobs.exceptions import BrokerUnavailable
from jobs.message import Message
from jobs.worker import forkserver
from jobs.worker.board import Board
from jobs.worker.child import Child, Options
from tests.project import ROOT, Process, Project
from tests.services import START_SECONDS, wait_for

_numbers = itertools.count(1)


def work(queues: Sequence[str] = (), **options: Any) -> None:
    """Run everything that waits on the queues in this process, as ``runworker --burst`` does."""
    name = f"here/{next(_numbers)}"
    chosen = Options(queues=tuple(queues or conf.get().queues), name=name, burst=True, **options)
    board = Board.make(chosen.places)
    child = Child(name, chosen, board)
    exits: list[int] = []

    def end(code: int) -> None:
        """A vital thread has failed, which ends a worker's process, but not the tests'."""
        exits.append(code)
        child.stop()

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", end)
        try:
            child.run()
        except BaseException:
            child.stop()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            board.close()
    assert not exits, "a thread of the worker raised what ends its process: see the log"


def put(raw: bytes, queue: str = "default", priority: int = 0) -> None:
    """Put these bytes on a queue, past everything that checks them."""
    broker.get().push([Outgoing(queue, raw, priority)])


def put_message(queue: str = "default", **fields: Any) -> str:
    """Put a signed message on a queue, past the checks of `Task`; its id."""
    sent = Message(id=fields.pop("id", message.new_id()), queue=queue, **fields)
    put(message.encode(sent), queue)
    return sent.id


def dead_letters(queue: str = "default") -> list[DeadLetter]:
    return broker.get().dead_letters(queue, 100)


class _Abort(Exception):
    pass


@contextlib.contextmanager
def rolled_back() -> Iterator[None]:
    """An atomic block, a savepoint inside of another one, that ends with an exception."""
    with contextlib.suppress(_Abort), transaction.atomic():
        yield
        raise _Abort


class Gate:
    """Holds the tasks `wait_at` and `async_wait_at`, which get ``gate.path``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.path = str(folder)
        self._folder = folder

    def arrived(self) -> int:
        """How many have come to it."""
        return len(list(self._folder.glob("arrived-*")))

    def processes(self) -> list[int]:
        """Process ids of those that have come to it, each as often as it came."""
        return [int(path.name.split("-")[1]) for path in self._folder.glob("arrived-*")]

    def wait_for(self, count: int = 1, timeout: float = 60) -> None:
        wait_for(lambda: self.arrived() >= count, timeout, what=f"{count} tasks at the gate")

    def open(self) -> None:
        (self._folder / "open").touch()


def own_jobs(project: Project, jobs: dict[str, Any]) -> dict[str, str]:
    """Variables for a process with these settings in JOBS besides the project's."""
    name = f"settings_{next(_numbers)}"
    text = f"from tests.settings import *\nJOBS = {{**JOBS, **{jobs!r}}}\n"
    (project.folder / f"{name}.py").write_text(text)
    project.own_jobs.add(name)
    path = os.pathsep.join([str(project.folder), str(ROOT)])
    return {"DJANGO_SETTINGS_MODULE": name, "PYTHONPATH": path}


def start_worker(project: Project, *args: str, jobs: dict[str, Any] | None = None) -> Process:
    """Start ``runworker``, with these settings in JOBS besides the project's."""
    return project.manage("runworker", *args, **(own_jobs(project, jobs) if jobs else {}))


def ready_worker(project: Project, *args: str, jobs: dict[str, Any] | None = None) -> Process:
    """`start_worker`, and wait until all its children claim."""
    process = start_worker(project, *args, jobs=jobs)
    count = int(args[args.index("--processes") + 1])
    wait_for(
        lambda: process.output().count(" ready, queues") >= count or process.poll() is not None,
        START_SECONDS,
        what="the children to be ready",
    )
    assert process.poll() is None, process.output()
    return process


def children(process: Process) -> list[int]:
    """Process ids of a worker's children, in the order of their start."""
    return sorted(pid for pid, name in processes_below(process.pid) if name != forkserver.NAME)


def fork_server(process: Process) -> int:
    """The process id of a worker's fork server."""
    (found,) = [pid for pid, name in processes_below(process.pid) if name == forkserver.NAME]
    return found


def processes_below(parent: int) -> list[tuple[int, str]]:
    """Process ids and names of a process's children."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text("utf-8")
    with_names = []
    for pid in found.split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with_names.append((int(pid), Path(f"/proc/{pid}/comm").read_text("utf-8").strip()))
    return with_names


def kill_one_child(process: Process) -> int:
    """kill -9 for a child that runs; its process id. One that was killed before may not have been
    replaced yet."""
    running = wait_for(lambda: [pid for pid in children(process) if alive(pid)], what="a child")
    os.kill(running[0], signal.SIGKILL)
    wait_for(lambda: not alive(running[0]), what="its end")
    return int(running[0])


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def hasten(queue: str = "default") -> None:
    """Have all messages that are due later be due now."""
    for found in list(broker.get().browse(queue, due=True)):
        assert broker.get().hasten(queue, found.raw, found.priority)


def settled(queue: str = "default") -> None:
    """Wait until nothing of a queue waits or is in flight, through an outage of the broker."""

    def nothing() -> bool:
        with contextlib.suppress(BrokerUnavailable):
            return on_redis(queue) == (0, 0)
        return False

    wait_for(nothing, what=f"everything of queue {queue} to be acknowledged")


def on_redis(queue: str = "default") -> tuple[int, int]:
    """Messages of a queue that wait, and that are in flight."""
    stats = broker.get().stats(queue)
    return stats.waiting, stats.in_flight
