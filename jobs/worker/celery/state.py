"""What Celery's clients are told of a worker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from jobs.control import inspecting
from jobs.control.inspecting import Place
from jobs.worker.celery.events import hostname_of
from jobs.worker.child import Options
from jobs.worker.supervisor.queues import Queues, Size
from jobs.worker.supervisor.reporter import Reporter
from jobs.worker.supervisor.slot import Slot


class Active(NamedTuple):
    """A call that this worker runs."""

    running: inspecting.Running
    #: Of the child; 0: it has just ended.
    pid: int


class WorkerState:
    """One worker. Commands get it as their first argument."""

    def __init__(
        self,
        options: Options,
        slots: Sequence[Slot],
        reporter: Reporter,
        changing: Queues,
        size: Size,
    ) -> None:
        self.options = options
        self.slots = slots
        self._reporter = reporter
        #: The worker's own name, and that for Celery's clients.
        self.worker = options.name
        self.hostname = hostname_of(options.name)
        #: Takes queues on and gives them up.
        self.changing = changing
        #: How many children it is to have.
        self.size = size
        self.pid = os.getpid()
        #: When it started (monotonic).
        self.started = time.monotonic()
        #: Celery's logical clock, which orders the messages of several workers.
        self.clock = 0
        #: Set to have a heartbeat sent at once.
        self.beat = threading.Event()

    @property
    def queues(self) -> tuple[str, ...]:
        """What it claims from."""
        return self.changing.served

    def forward(self) -> int:
        """Advance the clock for the next message."""
        self.clock += 1
        return self.clock

    def adjust(self, other: object) -> None:
        """Advance the clock beyond the one that came with somebody else's message."""
        if isinstance(other, int) and 0 <= other < 2**62:
            self.clock = max(self.clock, other) + 1

    @property
    def processed(self) -> int:
        """How many calls its children have run."""
        return sum(slot.processed for slot in self.slots)

    def places(self) -> list[Place]:
        """Where calls run at this moment, by what the children say in memory."""
        return inspecting.places(self._reporter.running())

    def active(self) -> list[Active]:
        """The calls that run at this moment, the oldest first."""
        return self.at(self.places())

    def at(self, places: Sequence[Place]) -> list[Active]:
        """The calls that run in these places."""
        pids = self.pids()
        found = [one for one in inspecting.current(places) if one]
        found.sort(key=lambda one: one.since)
        return [Active(one, pids.get(one.consumer, 0)) for one in found]

    def pids(self) -> dict[str, int]:
        """Child → its process id."""
        alive = [(slot.consumer, slot.process) for slot in self.slots]
        return {consumer: process.pid for consumer, process in alive if process}
