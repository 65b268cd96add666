"""The queues and the number of children of a worker, which change while it runs."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence

from jobs.exceptions import ConfigurationError
from jobs.registry import own_queue
from jobs.worker.board import MOST_CHANGES
from jobs.worker.child import Options
from jobs.worker.supervisor.slot import Slot

log = logging.getLogger("jobs.worker")


class Queues:
    """What the children claim from. Several threads may use it: operators ask the supervisor's main
    thread, Celery's clients another one. A worker that is restarted has those of its command line.
    """

    def __init__(self, options: Options, slots: Sequence[Slot]) -> None:
        self._lock = threading.Lock()
        #: What a child is to be started with now.
        self.options = options
        self._first = options
        self._slots = slots
        #: The one that has the worker's reports and takes its commands. It stays that.
        self.home = options.queues[0]
        #: What the children claim from.
        self.served: tuple[str, ...] = options.queues
        #: These and those that were given up: a child may still hold messages of them.
        self.attended: tuple[str, ...] = options.queues

    def take_on(self, queue: str) -> bool:
        """Have the children claim from this queue as well, after the others. False: they do.

        Raises `UnknownQueue`, and `ConfigurationError` for a queue of Celery's workers, or after
        too many changes.
        """
        own_queue(queue)
        return self._change(queue, lambda served: () if queue in served else (*served, queue))

    def give_up(self, queue: str) -> bool:
        """Have the children claim no longer from this queue. What they run goes on, and what they
        haven't started goes back. False: they don't claim from it.

        Raises `ConfigurationError` for the only queue, and after too many changes.
        """

        def without(served: tuple[str, ...]) -> tuple[str, ...]:
            if served == (queue,):
                raise ConfigurationError(
                    f"Queue {queue!r} is the only one of worker {self.options.name!r}: have it "
                    "claim nothing by manage.py jobs_worker quiet."
                )
            left = tuple(one for one in served if one != queue)
            return left if len(left) < len(served) else ()

        return self._change(queue, without)

    def _change(self, queue: str, changed: Callable[[tuple[str, ...]], tuple[str, ...]]) -> bool:
        """``changed``: makes the queues to serve out of those that are; empty: no change."""
        with self._lock:
            served = changed(self.served)
            if not served:
                return False
            former = self._first
            # What was added and what was given up, however often.
            touched = {*self.attended, queue} - ({*former.queues} & {*served})
            if len(touched) > MOST_CHANGES:
                raise ConfigurationError(
                    f"The queues of worker {former.name!r} were changed {MOST_CHANGES} times: "
                    "restart it with those that it is to have."
                )
            weights = dict(zip(former.queues, former.weights, strict=False))
            self.options = dataclasses.replace(
                former,
                queues=served,
                weights=tuple(weights.get(one, 1) for one in served) if weights else (),
            )
            self.served = served
            self.attended = (*self.attended, *({queue} - {*self.attended}))
            for slot in self._slots:
                slot.use(self.options)
            log.warning("worker %s has the queues %s now", former.name, ", ".join(served))
            return True


#: A worker has at most so many times as many children as it was started with.
_MOST = 10


class Size:
    """How many children a worker is to have. A worker that is restarted has those of its command
    line."""

    def __init__(self, processes: int) -> None:
        self._lock = threading.Lock()
        self._most = _MOST * processes
        self.wanted = processes

    def change(self, by: int) -> int:
        """Have so many children more or, below 0, less; how many there are to be. Raises
        `ConfigurationError` if that were none, or too many."""
        with self._lock:
            wanted = self.wanted + by
            if not 1 <= wanted <= self._most:
                raise ConfigurationError(
                    f"A worker of {self._most // _MOST} processes can be given from 1 to "
                    f"{self._most} of them, and not {wanted}."
                )
            self.wanted = wanted
            return wanted
