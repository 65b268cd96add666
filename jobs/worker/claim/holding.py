"""Messages that were running when a process died: each is run with nothing beside it.

Of several that ran in one process nobody knows which one ended it. Run alone, the next death tells,
and those that were only near it are not given up with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from jobs.registry import tasks
from jobs.worker.record.outcome import Delivery
from jobs.worker.run.runners import AsyncRunner, SyncRunners


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


class Suspects:
    """One child's. While there is any it claims nothing; what it runs already goes on."""

    def __init__(self, sync: SyncRunners, loop: AsyncRunner) -> None:
        self._sync = sync
        self._async = loop
        self._held: deque[Delivery] = deque()
        #: What the count of finished synchronous tasks is when the one that runs alone has ended.
        self._finished = 0
        #: The one that runs alone is on the event loop.
        self._on_loop = False

    def hold(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Keep those that are suspect; the others are returned."""
        # Where one at a time is run, each is alone as it is.
        if self._sync.width == 1 and not self._async.wanted:
            return list(deliveries)
        deliveries = list(deliveries)
        self._held += [d for d in deliveries if d.message.crashes]
        return [d for d in deliveries if not d.message.crashes]

    @property
    def busy(self) -> bool:
        """Whether one waits or runs, so that nothing may be put beside it."""
        return bool(self._held) or self._runs()

    def _runs(self) -> bool:
        if self._async.running == 0:
            self._on_loop = False
        return self._on_loop or self._sync.finished < self._finished

    def step(self) -> None:
        """Run the next one, if nothing else runs."""
        if not self._held or self._runs():
            return
        if self._sync.busy or self._sync.unstarted or self._async.running:
            return
        delivery = self._held.popleft()
        if delivery.task.is_async:
            self._on_loop = True
            self._async.submit([delivery])
        else:
            self._finished = self._sync.finished + 1
            self._sync.submit([delivery])

    @property
    def held(self) -> list[Delivery]:
        return list(self._held)

    def take_back(self) -> list[Delivery]:
        taken = list(self._held)
        self._held.clear()
        return taken
