"""Calls whose messages the broker has lost, found and sent again by themselves.

The supervisor asks the broker every few seconds whether it may have lost messages: the server was
restarted or emptied, or a replica has taken over. If so, its children put back into flight what
they hold, and a thread compares the ledger with the queues and sends again what is missing. One
worker does that for all; a comparison that is interrupted is begun again by whoever looks next.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence

from django.db import connections

from jobs import broker, conf
from jobs.broker.base import COMPARING, Compare
from jobs.ledger import recovery
from jobs.registry import tasks
from jobs.timing import clock
from jobs.worker.loops import AWAY, Backoff

log = logging.getLogger("jobs.worker")

#: Seconds between two looks at most.
_LOOK = 5.0
#: Queues that are asked about first: the server takes some 40 µs for each.
_ASKED = 3
#: Seconds that a child takes at most to do what the supervisor has noted on its board.
_SLACK = 1.0
#: Seconds between the first reading of the queues and the second. What moves from one list to
#: another may be overlooked in one of them.
_AGAIN = 1.0


def look_seconds() -> float:
    """Seconds between two looks."""
    return min(_LOOK, conf.get().lease_seconds / 5)


def doubtful(queues: Sequence[str]) -> list[str]:
    """Those of these queues of which the broker may have lost messages. Of many, a few are asked
    about first: what happens to a server happens to all queues that are there.

    Raises `BrokerUnavailable`.
    """
    if len(queues) > _ASKED:
        some = random.sample(queues, _ASKED)
        if not broker.get().doubtful(some):
            return []
    return broker.get().doubtful(queues)


class Comparison:
    """Compares queues with the ledger, in a thread that lives as long as that takes."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._patience = Backoff(
            log,
            "can't look for calls that the broker has lost, for the {what} is away",
            "can look for calls that the broker has lost: the {what} is back",
            failing="can't look for calls that the broker has lost; it tries again",
            working="can look for calls that the broker has lost again",
        )
        #: Until when `_go_on` needn't ask the broker (monotonic).
        self._until = 0.0

    def start(self, queues: Sequence[str]) -> None:
        """Compare these queues, unless a comparison is running."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(
            target=self._run, args=(queues,), name="jobs-comparison", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Have it end at its next step."""
        self._stopping.set()

    def _run(self, queues: Sequence[str]) -> None:
        """Whatever fails is tried again after the supervisor's next look."""
        try:
            self.compare(queues)
        except AWAY as error:
            self._stopping.wait(self._patience.away(error))
        except Exception as error:  # noqa: BLE001  it is logged there
            self._patience.failed(error)
        else:
            self._patience.back()
        finally:
            connections.close_all()
            broker.get().close()

    def compare(self, queues: Sequence[str]) -> None:
        """Send again the calls of these queues that the ledger waits for and the broker doesn't
        have; not those of queues that another worker compares.

        Raises `BrokerUnavailable` and errors of the database; the queues stay doubtful then.
        """
        begun = [queue for queue in queues if self._step(queue, Compare.BEGIN)]
        self._until = time.monotonic() + COMPARING / 6
        try:
            sent = self._send_again(begun) if begun and recovery.any_open(begun) else 0
        except _Interrupted:
            return
        for queue in begun:
            self._step(queue, Compare.END)
        if sent:
            log.warning(
                "the broker has lost messages: %d committed calls of the queues %s are sent again",
                sent,
                ", ".join(begun),
            )

    def _send_again(self, queues: Sequence[str]) -> int:
        early = [name for name, task in tasks.items() if task.acks_early]
        # First all workers have to notice, and to put back into flight what they hold.
        self._wait(2 * look_seconds() + _SLACK, queues)
        before, sent = clock.now(), 0
        for calls in recovery.lost(
            before,
            queues=queues,
            unless=early,
            read=lambda: self._go_on(queues),
            between=lambda: self._wait(_AGAIN, queues),
        ):
            sent += recovery.put_back(calls, before)
            self._go_on(queues)
        return sent

    def _wait(self, seconds: float, queues: Sequence[str]) -> None:
        ends = time.monotonic() + seconds
        self._go_on(queues)
        while (left := ends - time.monotonic()) > 0:
            self._stopping.wait(min(left, 1.0))  # ended by stop()
            self._go_on(queues)

    def _go_on(self, queues: Sequence[str]) -> None:
        """Keep the comparison; raises `_Interrupted` when it must end."""
        if self._stopping.is_set():
            raise _Interrupted
        now = time.monotonic()
        if now < self._until:
            return
        self._until = now + COMPARING / 6
        kept = [self._step(queue, Compare.CONTINUE) for queue in queues]
        if not all(kept):
            raise _Interrupted

    def _step(self, queue: str, step: Compare) -> bool:
        return broker.get().compare(queue, self._worker, step)


class _Interrupted(Exception):
    """The worker stops, or the server has lost its data once more."""
