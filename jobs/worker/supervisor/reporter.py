"""What a worker tells the broker about itself: what it runs, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Sequence

import django

from jobs import broker, conf
from jobs.control.workers import Gone, How
from jobs.exceptions import BrokerUnavailable
from jobs.timing import clock
from jobs.worker.board import place_of
from jobs.worker.child import Options
from jobs.worker.machine import memory_of
from jobs.worker.supervisor.queues import Queues
from jobs.worker.supervisor.slot import Left, Slot

#: Seconds between two reports at least.
_REPORT_PAUSE = 1.0

#: Most characters of JOBS["REVISION"] that are reported.
_REVISION = 100

#: Shard of a queue, consumer, delivery number, and since when it runs (Unix seconds).
Place = tuple[str, str, int, float]


class Reporter:
    """Reports on the broker what this worker runs, for `jobs.control.inspect`.

    It reads the boards of the children, so that busy children are reported as well: at each
    renewal and, once a second at most, when other tasks run than before.
    """

    def __init__(self, options: Options, slots: Sequence[Slot], queues: Queues) -> None:
        self._options = options
        self._slots = slots
        self._queues = queues
        self._started = time.time()
        #: What the children may claim from.
        self.shards: Sequence[str] = options.queues
        #: What the worker is doing: see `jobs.control.inspecting.Worker.state`.
        self.state = "running"
        #: What ran at the last report, in which state, of which queues, and when that was
        #: (monotonic).
        self._said: list[Place] = []
        self._said_state = ""
        self._said_queues: Sequence[str] = ()
        self._said_at = 0.0
        #: Children that have ended, and aren't noted yet.
        self._gone: list[Gone] = []

    def has_news(self, now: float) -> bool:
        """Whether other tasks run than at the last report, in another state, or a child has ended
        (``now``: monotonic)."""
        if now - self._said_at < _REPORT_PAUSE:
            return False
        if self._gone or self.state != self._said_state:
            return True
        if self._queues.served != self._said_queues:
            return True
        return {place[1:3] for place in self.running()} != {place[1:3] for place in self._said}

    def child_ended(self, left: Left) -> None:
        """Remember a child that didn't just stop; the next report notes it."""
        if left.crash:
            how, why = How.CRASHED, left.crash
        elif left.killed:
            how, why = How.KILLED, " and ".join(sorted({one.value for one in left.killed.values()}))
        else:
            return
        self._gone.append(
            Gone(left.consumer, how, why, clock.now(), socket.gethostname(), left.pid)
        )

    def report(self, queues: Sequence[str]) -> None:
        """``queues``: the one that has this worker's reports."""
        self._said, self._said_at = self.running(), time.monotonic()
        self._said_state, self._said_queues = self.state, self._queues.served
        options = self._options
        processes = sum(not slot.retired for slot in self._slots)
        said = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "queues": self._said_queues,
            "processes": processes,
            "capacity": processes * max(1, options.threads),
            "processed": sum(slot.processed for slot in self._slots),
            "failed": sum(slot.failures for slot in self._slots),
            "consumers": [slot.consumer for slot in self._slots if slot.process],
            "running": self._said,
            "state": self.state,
            "versions": {
                "jobs": sys.modules["jobs"].__version__,
                "python": platform.python_version(),
                "django": django.get_version(),
            },
            "revision": conf.get().revision[:_REVISION],
            "parts": [
                (options.name, os.getpid(), memory_of(os.getpid()), False),
                *(
                    (slot.consumer, slot.process.pid, memory_of(slot.process.pid), slot.ready)
                    for slot in self._slots
                    if slot.process
                ),
            ],
            "every": conf.get().lease_seconds / 3,
        }
        for queue in queues:
            broker.get().report(queue, options.name, json.dumps(said).encode())
            while self._gone:
                broker.get().note_gone(queue, self._gone[0].dumps())
                self._gone.pop(0)

    def leave(self, how: How, why: str) -> None:
        """Replace the report by a note of how this worker ended. Should the broker be away, readers
        can tell by the ended leases."""
        name, queue = self._options.name, self._queues.home
        ended = Gone(name, how, why, clock.now(), socket.gethostname(), os.getpid())
        with contextlib.suppress(BrokerUnavailable):
            for child in self._gone:
                broker.get().note_gone(queue, child.dumps())
            broker.get().note_gone(queue, ended.dumps(), name)

    def running(self) -> list[Place]:
        """What runs at this moment. Other threads may ask."""
        # The boards have monotonic times.
        offset = time.time() - time.monotonic()
        return [
            (queue, slot.consumer, number, began + offset)
            for slot in self._slots
            for delivery, began in slot.running()
            for queue, number in [place_of(delivery, self.shards)]
        ]
