"""How many deliveries one child claims at a time: what its runners can use, and little more."""

from __future__ import annotations

import time

from jobs.worker.async_runner import AsyncRunner
from jobs.worker.gathering import Gathering
from jobs.worker.recorder import FULL, Recorder
from jobs.worker.runners import MOST, SyncRunners

#: Most of one claim while nearly nothing of it is run: what is must not wait long for the rest.
_AGAIN = 100

#: Pauses, in seconds, between two looks for calls of the one kind behind those of the other, which
#: are claimed and given back by them: the shortest, the longest, and at least so many times what
#: the look took.
_PAUSES = (0.05, 0.5)
_REST = 8
#: Most messages of one look.
_FARTHEST = 5000


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
        #: A synchronous task had to be given back: claim none until a runner is free.
        self.sync_waits = False
        #: The same, of an ``async def`` task.
        self.async_waits = False
        #: When to look for what of the other kind waits behind them (monotonic), how far, and the
        #: pause after that.
        self._look_at = 0.0
        self._far = 1
        self._pause = 0.0
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
        if self.looking:
            return self._room_beside()
        room = max(self._sync_room(), self._async_room())
        return max(room, self._again) if room > 0 else 0

    @property
    def looking(self) -> bool:
        """Whether calls of one kind only are claimed: a claim can't tell them from the others,
        which go back."""
        return self.sync_waits or self.async_waits

    def _room_beside(self) -> int:
        """The same, while calls of one kind wait for a runner."""
        if (self.sync_waits and self.async_waits) or time.monotonic() < self._look_at:
            return 0
        room = self._async_room() if self.sync_waits else self._sync_room()
        return max(room, self._far) if room > 0 else 0

    def came_back(self, *, sync: bool) -> None:
        """A call of this kind had to be given back."""
        if not self.looking:
            # Not at once: a runner may be free in a moment.
            self._pause, self._far = _PAUSES[0], 1
            self._look_at = time.monotonic() + self._pause
        if sync:
            self.sync_waits = True
        else:
            self.async_waits = True

    def looked(self, began: float, *, kept: int, returned: int) -> None:
        """So many calls of one kind were found, among so many of the other."""
        now = time.monotonic()
        if returned <= 4 * kept:
            self._pause, self._far = 0.0, 1
        else:
            self._pause = min(_PAUSES[1], max(_PAUSES[0], 2 * self._pause))
            self._far = min(_FARTHEST, 4 * self._far)
        self._look_at = now + max(self._pause, _REST * (now - began) if returned else 0.0)

    def until_look(self) -> float:
        """Seconds until the next look; infinity when none is to come."""
        if self.looking and not (self.sync_waits and self.async_waits):
            return max(0.0, self._look_at - time.monotonic())
        return float("inf")

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
