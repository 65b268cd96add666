"""Messages that were running when a process died: each is run with nothing beside it.

Of several that ran in one process nobody knows which one ended it. Run alone, the next death tells,
and those that were only near it are not given up with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from jobs.worker.async_runner import AsyncRunner
from jobs.worker.outcome import Delivery
from jobs.worker.runners import SyncRunners


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
