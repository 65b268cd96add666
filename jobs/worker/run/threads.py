"""Where synchronous tasks run: in the child's main thread, or in a pool of threads.

Deliveries wait in one deque, from whose left end runners take and from whose right end the
consumer takes back. Both ends are atomic in CPython, so no lock is paid for each task.
"""

from __future__ import annotations

import functools
import itertools
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from django.db import connections

from jobs.worker.board import Board, key
from jobs.worker.loops import vital
from jobs.worker.record.outcome import (
    Delivery,
    Outcome,
    each,
)
from jobs.worker.run import database, executor
from jobs.worker.run.database import Care
from jobs.worker.run.early import ack_early, lost
from jobs.worker.run.time_limits import Limits

#: A claim should bring about as much work, in seconds, as this.
AHEAD = 0.05
#: Most deliveries of one claim.
MOST = 500


class Pace:
    """How many deliveries make `AHEAD` seconds of work, by a moving average of what ran."""

    def __init__(self) -> None:
        self._average = AHEAD  # one at a time, until it is known better

    def note(self, runtime: float) -> None:
        # Quick to slow down, since a long task holds up what was claimed behind it.
        weight = 0.5 if runtime > self._average else 0.1
        self._average += (runtime - self._average) * weight

    @property
    def target(self) -> int:
        return max(1, min(MOST, int(AHEAD / max(self._average, 1e-6))))


class SyncRunners:
    """Runs synchronous tasks in the calling thread (`run`) or in threads (`start`)."""

    def __init__(
        self,
        worker: str,
        board: Board,
        limits: Limits,
        done: Callable[[Outcome], None],
        idle: Callable[[], None],
        *,
        batch: int = 1,
        crowded: Callable[[], bool] = lambda: False,
    ):
        """``board``: its first places are those of these runners, ``batch`` (most calls of one)
        for each. ``crowded``: whether what is done already waits in such amounts that no more
        should be run."""
        self._worker = worker
        self._board = board
        self._batch = batch
        self._limits = limits
        #: What is running now, by place on the board.
        self.running: dict[int, Delivery] = {}
        #: What becomes of an outcome.
        self.done = done
        self._idle = idle
        self._crowded = crowded
        self.unstarted: deque[Delivery] = deque()
        self.pace = Pace()
        #: Set when a runner has little left to do.
        self.freed = threading.Event()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        #: When each busy runner started its task (monotonic), by thread id.
        self._started: dict[int, float] = {}
        self.finished = 0

    @property
    def width(self) -> int:
        """How many tasks can run at once."""
        return max(1, len(self._threads))

    @property
    def busy(self) -> int:
        return len(self._started)

    def overrun(self) -> bool:
        """Whether every runner is in a task that lasts longer than what is claimed ahead should."""
        started = list(self._started.values())
        return len(started) == self.width and time.monotonic() - max(started) > AHEAD

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        self.unstarted.extend(deliveries)
        for _ in range(min(len(deliveries), self.width)):
            self._wake.put(None)

    def take_back(self) -> list[Delivery]:
        """What no runner has started yet."""
        taken = []
        try:
            while True:
                taken.append(self.unstarted.pop())
        except IndexError:
            return taken

    def start(self, threads: int) -> None:
        self._threads = [
            threading.Thread(
                target=vital(functools.partial(self.run, n)), name=f"jobs-task-{n}", daemon=True
            )
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make `run` return after the task it is in. Safe in a signal handler."""
        self._stopping = True
        for _ in range(self.width):
            self._wake.put(None)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def run(self, place: int = 0) -> None:
        """Run tasks until `stop`. ``place``: this runner's on the board."""
        care = Care()
        database.claim_thread()
        me = threading.get_ident()
        while not self._stopping:
            self._run_unstarted(me, place, care)
            self.freed.set()
            self._idle()
            try:
                self._wake.get(timeout=1.0 if care.pending else None)
            except queue.Empty:
                care.now()
        connections.close_all()

    def _run_unstarted(self, me: int, place: int, care: Care) -> None:
        clock = time.monotonic
        started = clock()
        while not self._stopping:
            # First: at no moment is a delivery neither among the unstarted nor with a busy runner,
            # or a burst might see its worker idle, and end before what this task sends.
            self._started[me] = started
            try:
                delivery = self.unstarted.popleft()
            except IndexError:
                break
            outcome = self._run_one(delivery, place, started)
            self.done(outcome)
            if outcome.size:
                self._wait_for_room()
            ended = clock()
            self.pace.note(ended - started)
            self.finished += 1
            started = ended
            if outcome.failed:
                care.now()
            else:
                care.between_tasks()
            if not self.freed.is_set() and len(self.unstarted) * 2 < self.pace.target:
                self.freed.set()
        self._started.pop(me, None)

    def _wait_for_room(self) -> None:
        """After a large outcome. To the consumer, this is a long task: it gives back what waits."""
        while self._crowded() and not self._stopping:
            time.sleep(0.01)

    def _run_one(self, delivery: Delivery, place: int, now: float) -> Outcome:
        if delivery.task.batch:
            return self._run_batch(delivery, place, now)
        hard = self._limits.hard(delivery.message, delivery.task)
        ends = math.inf if hard is None else now + hard
        self._board.begin(place, key(delivery.queue, delivery.number), ends, now)
        self.running[place] = delivery
        try:
            early = delivery.task.acks_early
            if early and not ack_early(delivery, self._worker):
                return lost(delivery)
            outcome = executor.run(delivery, self._worker, self._limits)
        finally:
            self._board.end(place)
            del self.running[place]
        return outcome.of(delivery, held=not early)

    def _run_batch(self, first: Delivery, place: int, now: float) -> Outcome:
        """The last one's outcome; those of the others are handed on before."""
        deliveries, early = each([first]), first.task.acks_early
        gone: list[Outcome] = []
        places = self._places(place)[: len(deliveries)]
        hard = executor.shortest([self._limits.hard(d.message, d.task) for d in deliveries])
        for at, delivery in zip(places, deliveries, strict=True):
            ends = math.inf if hard is None else now + hard
            self._board.begin(at, key(delivery.queue, delivery.number), ends, now)
        self.running[place] = first
        try:
            if early:
                mine = [ack_early(d, self._worker) for d in deliveries]
                gone = [lost(d) for d, held in zip(deliveries, mine, strict=True) if not held]
                deliveries = list(itertools.compress(deliveries, mine))
            ran = executor.run_batch(deliveries, self._worker, self._limits) if deliveries else []
        finally:
            for at in places:
                self._board.end(at)
            del self.running[place]
        decided = zip(deliveries, ran, strict=True)
        *others, last = [*gone, *(o.of(d, held=not early) for d, o in decided)]
        for outcome in others:
            self.done(outcome)
        last.failed |= any(outcome.failed for outcome in others)
        return last

    def _places(self, place: int) -> list[int]:
        """On the board, of the calls of a batch: this runner's own, and those set aside for it."""
        more = self._batch - 1
        start = self.width + place * more
        return [place, *range(start, start + more)]
