"""Calls of tasks that take many at once, until there are enough of them or one has waited enough.

They wait here and not in a runner: what else the child has to do goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.registry import tasks
from jobs.worker.outcome import Delivery


class Gathering:
    """One child's. Times are monotonic seconds."""

    def __init__(self, most: int) -> None:
        """``most``: calls of one batch that the board has places for."""
        self._most = most
        #: Whether there is any task that takes many at once.
        self.wanted = any(task.batch for task in tasks.values())
        #: Task → what waits to be run with others, and until when.
        self._held: dict[str, list[Delivery]] = {}
        self._ends: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """What is to be run now: what is in no batch, and a full one as one delivery."""
        ready = []
        for delivery in deliveries:
            # One whose process died is run by itself, so that the next death tells.
            if not delivery.task.batch or delivery.message.crashes:
                ready.append(delivery)
            elif self._hold(delivery, now) == self._full(delivery):
                ready.append(self._take(delivery.task.name))
        return ready

    def due(self, now: float) -> list[Delivery]:
        """The batches that have waited long enough."""
        return [self._take(name) for name, ends in list(self._ends.items()) if ends <= now]

    def wait(self, now: float) -> float:
        """Seconds until the first is due; there must be one."""
        return max(0.0, min(self._ends.values()) - now)

    def missing(self) -> int:
        """How many calls would fill the batch that needs the most."""
        return max((self._full(held[0]) - len(held) for held in self._held.values()), default=0)

    @property
    def held(self) -> list[Delivery]:
        return [delivery for held in self._held.values() for delivery in held]

    def take_back(self) -> list[Delivery]:
        return [self._take(name) for name in list(self._held)]

    def _hold(self, delivery: Delivery, now: float) -> int:
        held = self._held.setdefault(delivery.task.name, [])
        self._ends.setdefault(delivery.task.name, now + delivery.task.options.batch_wait)
        held.append(delivery)
        return len(held)

    def _full(self, delivery: Delivery) -> int:
        return min(delivery.task.batch, self._most)

    def _take(self, name: str) -> Delivery:
        del self._ends[name]
        first, *others = self._held.pop(name)
        return first._replace(others=tuple(others))
