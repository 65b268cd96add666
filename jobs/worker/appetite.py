"""How many deliveries one child claims at a time: what its runners can use, and little more."""

from __future__ import annotations

from jobs.worker.async_runner import AsyncRunner
from jobs.worker.gathering import Gathering
from jobs.worker.recorder import FULL, Recorder
from jobs.worker.runners import MOST, SyncRunners

#: Most of one claim while nearly nothing of it is run: what is must not wait long for the rest.
_AGAIN = 100


class Appetite:
    def __init__(
        self, sync: SyncRunners, loop: AsyncRunner, recorder: Recorder, gathering: Gathering
    ) -> None:
        self._sync = sync
        self._async = loop
        self._recorder = recorder
        self._gathering = gathering
        #: How many the last claim brought that brought any.
        self.last_claim = 1
        #: A synchronous task had to be given back: claim nothing until a runner is free.
        self.sync_waits = False
        #: The same, of an ``async def`` task.
        self.async_waits = False
        #: How many to claim at least: of the last ones nearly none was run, and held up nobody.
        self._again = 0

    def room(self) -> int:
        """How many deliveries there is use for now."""
        if self._recorder.backlog > 4 * FULL or self._recorder.crowded:
            return 0  # it can't write: what is held already is enough to lose sleep over
        if self._sync.busy < self._sync.width:
            self.sync_waits = False
        if self._async.running < self._async.concurrency:
            self.async_waits = False
        if self.sync_waits or self.async_waits:
            return 0
        room = max(self._sync_room(), self._async_room())
        return max(room, self._again) if room > 0 else 0

    def _sync_room(self) -> int:
        waiting = len(self._sync.unstarted)
        target = self._sync.pace.target
        if self._sync.overrun():
            return 0
        if target == 1:
            # Long tasks: nothing is claimed ahead, so that it stays free for other workers.
            room = max(0, self._sync.width - self._sync.busy - waiting)
            if room and self._gathering:
                return max(room, min(self._gathering.missing(), 2 * self.last_claim))
            return room
        # Growing step by step: an average of few tasks may be wrong.
        goal = min(target * self._sync.width, 2 * self.last_claim, MOST)
        return goal if waiting * 2 < goal else 0

    def _async_room(self) -> int:
        if not self._async.wanted:
            return 0
        return min(self._async.concurrency - self._async.running, 2 * self.last_claim)

    def learn(self, *, run: int, ended: int) -> None:
        """Of the last claim so many are to be run, and so many have ended without that."""
        self._again = min(_AGAIN, 2 * ended) if ended > 3 * run else 0
