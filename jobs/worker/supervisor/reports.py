"""What a worker says of itself on the broker, for those who look: `jobs.control.inspect`.

The supervisor says it, from the boards of its children, so that a child which is busy has nothing
to do with it: at each renewal, and when what runs has changed, once a second at most.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Sequence

from jobs import broker
from jobs.exceptions import BrokerUnavailable
from jobs.worker.board import place_of
from jobs.worker.child import Options
from jobs.worker.supervisor.slot import Slot

#: Seconds between two reports at least.
_PAUSE = 1.0

#: Queue, consumer, delivery number, and since when it runs (Unix seconds).
Place = tuple[str, str, int, float]


class Reporter:
    def __init__(self, options: Options, slots: Sequence[Slot]) -> None:
        self._options = options
        self._slots = slots
        self._started = time.time()
        #: What ran when that was last said, and when that was (monotonic).
        self._said: list[Place] = []
        self._said_at = 0.0

    def has_news(self, now: float) -> bool:
        """Whether other tasks run than when that was last said (``now``: monotonic)."""
        if now - self._said_at < _PAUSE:
            return False
        return {place[1:3] for place in self._running()} != {place[1:3] for place in self._said}

    def report(self) -> None:
        self._said, self._said_at = self._running(), time.monotonic()
        said = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "queues": self._options.queues,
            "processes": self._options.processes,
            "processed": sum(slot.processed for slot in self._slots),
            "consumers": [slot.consumer for slot in self._slots if slot.process],
            "running": self._said,
        }
        broker.get().report(self._options.queues[0], self._options.name, json.dumps(said).encode())

    def leave(self) -> None:
        """Nothing more is to be said. A broker that is away finds out by the leases."""
        with contextlib.suppress(BrokerUnavailable):
            broker.get().report(self._options.queues[0], self._options.name, None)

    def _running(self) -> list[Place]:
        # What the boards have is monotonic.
        offset = time.time() - time.monotonic()
        return [
            (queue, slot.consumer, number, began + offset)
            for slot in self._slots
            for delivery, began in slot.running()
            for queue, number in [place_of(delivery, self._options.queues)]
        ]
