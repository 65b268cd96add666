"""Where tasks run: synchronous ones in the child's main thread or in a pool of threads,
``async def`` ones on an event loop in a thread of its own.

Synchronous deliveries wait in one deque, from whose left end runners take and from whose right end
the consumer takes back. Both ends are atomic in CPython, so no lock is paid for each task.

`Runner` is what the consumer knows of either kind.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from asgiref.sync import sync_to_async
from django.db import connections
from msgspec.structs import replace

from jobs import broker
from jobs.api import waiting
from jobs.exceptions import BrokerUnavailable
from jobs.limits import keeper
from jobs.registry import tasks
from jobs.worker.board import Board, key
from jobs.worker.loops import end, vital
from jobs.worker.record.outcome import (
    Delivery,
    Done,
    Outcome,
    after_run,
    each,
)
from jobs.worker.record.recorder import Recorder
from jobs.worker.run import executor, isolation
from jobs.worker.run.executor import Limits
from jobs.worker.run.isolation import Care, Executor

log = logging.getLogger("jobs.worker")

#: Seconds of work that a claim should bring.
AHEAD = 0.05
#: Most deliveries of one claim.
MOST = 500
#: While the queues are empty, other workers may be idle. Then a call that takes so many times as
#: long as the average, and at least so many seconds, keeps nothing waiting behind it.
_LONG, _LONG_LEAST = 3, 0.002


class Pace:
    """How many deliveries make `AHEAD` seconds of work, by a moving average of what calls took."""

    def __init__(self) -> None:
        self._average = AHEAD  # one at a time, until more is known

    def note(self, runtime: float) -> None:
        # It slows down quickly, since a long task holds up what was claimed behind it.
        weight = 0.5 if runtime > self._average else 0.1
        self._average += (runtime - self._average) * weight

    @property
    def target(self) -> int:
        return max(1, min(MOST, int(AHEAD / max(self._average, 1e-6))))

    @property
    def long(self) -> float:
        """How long a call takes, in seconds, that takes unusually long; `AHEAD` at most."""
        return min(AHEAD, max(_LONG_LEAST, _LONG * self._average))


class Runner(Protocol):
    """Runs the deliveries of one kind: synchronous tasks, or ``async def`` ones."""

    #: What is running now, by place on the board.
    running: dict[int, Delivery]
    #: How many it has run.
    finished: int
    #: Most calls that it runs as one delivery.
    batch: int
    #: Set by the consumer: whether the queues were empty when it last asked them. Then it has
    #: nothing to give before the runner is idle, and others may be waiting for what waits here.
    drained: bool

    @property
    def wanted(self) -> bool:
        """Whether there is any task for it."""

    @property
    def width(self) -> int:
        """How many calls can run at once."""

    @property
    def busy(self) -> int:
        """How many of these places are taken."""

    @property
    def unstarted(self) -> Collection[Delivery]:
        """What was submitted and may still be taken back."""

    @property
    def idle(self) -> bool:
        """Whether all that was submitted has ended."""

    @property
    def patience(self) -> float:
        """Seconds that a call may take before what waits behind it goes back."""

    def overrun(self) -> bool:
        """Whether deliveries that haven't started would wait for long."""

    def room(self, most: int, missing: int) -> int:
        """How many more deliveries it can use; ``most`` at most. ``missing``: so many would fill a
        batch, of which some calls are here."""

    def submit(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Have deliveries run. Returns those that it can't use now."""

    def take_back(self) -> list[Delivery]:
        """Remove and return the deliveries that haven't started."""


class Runners(NamedTuple):
    """A child's runners."""

    sync: Runner
    loop: Runner

    def of(self, delivery: Delivery) -> Runner:
        """The runner of this delivery's kind."""
        return self.loop if delivery.task.is_async else self.sync


class SyncRunners:
    """Runs synchronous tasks in the calling thread (`run`) or in threads (`start`)."""

    wanted = True

    def __init__(
        self, worker: str, board: Board, limits: Limits, recorder: Recorder, *, batch: int = 1
    ):
        """``board``: its first places belong to these runners, one for each call of a largest
        ``batch``."""
        self._worker = worker
        self._board = board
        self.batch = batch
        self._limits = limits
        self._recorder = recorder
        #: Called with each outcome.
        self.done: Callable[[Outcome], None] = recorder.add
        self.running: dict[int, Delivery] = {}
        self.unstarted: deque[Delivery] = deque()
        self.pace = Pace()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        #: When each busy runner started its task (monotonic), by thread id.
        self._started: dict[int, float] = {}
        self.finished = 0
        self.drained = False

    @property
    def width(self) -> int:
        return max(1, len(self._threads))

    @property
    def busy(self) -> int:
        return len(self._started)

    @property
    def idle(self) -> bool:
        # In this order: a runner is busy before it takes a delivery away from the unstarted ones.
        return not self.unstarted and not self._started

    @property
    def patience(self) -> float:
        return self.pace.long if self.drained else AHEAD

    def overrun(self) -> bool:
        """Whether every runner has been in its task for longer than `patience`."""
        started = list(self._started.values())
        return len(started) == self.width and time.monotonic() - max(started) > self.patience

    def room(self, most: int, missing: int) -> int:
        if self.overrun():
            return 0
        waiting, target = len(self.unstarted), self.pace.target
        if target == 1:
            # Long tasks: claim nothing ahead, so that other workers can have it.
            room = max(0, self.width - self.busy - waiting)
            return max(room, min(missing, most)) if room else 0
        # Grow step by step: an average of few tasks may be wrong.
        goal = min(target * self.width, most, MOST)
        return goal if waiting * 2 < goal else 0

    def submit(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        if self.overrun():
            return deliveries
        self.unstarted.extend(deliveries)
        for _ in range(min(len(deliveries), self.width)):
            self._wake.put(None)
        return ()

    def take_back(self) -> list[Delivery]:
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
        """Make `run` return after its present task. Safe in a signal handler."""
        self._stopping = True
        for _ in range(self.width):
            self._wake.put(None)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def run(self, place: int = 0) -> None:
        """Run tasks until `stop`. ``place``: the runner's own on the board."""
        care, clock, freed = Care(), time.monotonic, self._recorder.freed
        isolation.claim_thread()
        me = threading.get_ident()
        while not self._stopping:
            started = clock()
            while not self._stopping:
                # Before popleft(): a delivery must always be unstarted or with a busy runner. A
                # burst would otherwise see an idle worker, and end before what this task sends.
                self._started[me] = started
                try:
                    delivery = self.unstarted.popleft()
                except IndexError:
                    break
                outcome = self._run_one(delivery, place, started)
                self.done(outcome)
                if outcome.size:
                    # To the consumer, this is a long task: it gives back what waits.
                    # Ended by the recorder or by a signal handler, which may not set an event.
                    while self._recorder.crowded and not self._stopping:
                        time.sleep(0.01)
                ended = clock()
                self.pace.note(ended - started)
                self.finished += 1
                started = ended
                if outcome.failed:
                    care.now()
                else:
                    care.between_tasks(ended)
                if (
                    not (self.drained or freed.is_set())
                    and len(self.unstarted) * 2 < self.pace.target
                ):
                    freed.set()
            self._started.pop(me, None)
            freed.set()
            self._recorder.flush()
            try:
                # Ended by submit() and stop().
                self._wake.get(timeout=1.0 if care.pending else None)
            except queue.Empty:
                care.now()
        connections.close_all()

    def _run_one(self, delivery: Delivery, place: int, now: float) -> Outcome:
        task = delivery.task
        if task.batch:
            return self._run_batch(delivery, place, now)
        hard = self._limits.hard(delivery.message, task)
        ends = math.inf if hard is None else now + hard
        self._board.begin(place, key(delivery.queue, delivery.number), ends, now)
        self.running[place] = delivery
        try:
            if task.acks_early:
                if not ack_early(delivery, self._worker):
                    return lost(delivery)
                delivery = replace(delivery, held=False)
            outcome = executor.run(delivery, self._worker, self._limits)
        finally:
            self._board.end(place)
            del self.running[place]
        return after_run(outcome, delivery)

    def _run_batch(self, first: Delivery, place: int, now: float) -> Outcome:
        """Hand on the outcomes of all calls but the last, and return that one's."""
        deliveries = each([first])
        gone: list[Outcome] = []
        # On the board, the runner's own place and those set aside for its batches.
        aside = self.width + place * (self.batch - 1)
        places = [place, *range(aside, aside + len(deliveries) - 1)]
        hard = executor.shortest([self._limits.hard(d.message, d.task) for d in deliveries])
        for at, delivery in zip(places, deliveries, strict=True):
            ends = math.inf if hard is None else now + hard
            self._board.begin(at, key(delivery.queue, delivery.number), ends, now)
        self.running[place] = first
        try:
            if first.task.acks_early:
                mine = [ack_early(d, self._worker) for d in deliveries]
                gone = [lost(d) for d, held in zip(deliveries, mine, strict=True) if not held]
                deliveries = [replace(d, held=False) for d in itertools.compress(deliveries, mine)]
            ran = executor.run_batch(deliveries, self._worker, self._limits) if deliveries else []
        finally:
            for at in places:
                self._board.end(at)
            del self.running[place]
        *others, last = [*gone, *map(after_run, ran, deliveries)]
        for outcome in others:
            self.done(outcome)
        return replace(last, failed=any(outcome.failed for outcome in [*others, last]))


class AsyncRunner:
    """Runs ``async def`` tasks on an event loop in a thread of its own, which the first starts."""

    def __init__(
        self,
        worker: str,
        concurrency: int,
        board: Board,
        limits: Limits,
        recorder: Recorder,
    ):
        """``board``: its last ``concurrency`` places belong to this runner."""
        self._worker = worker
        self._board = board
        self._limits = limits
        self._recorder = recorder
        #: Called with each outcome.
        self.done: Callable[[Outcome], None] = recorder.add
        self.wanted = any(task.is_async for task in tasks.values())
        self.width = concurrency
        #: What was submitted and hasn't ended, by its place. Filled by the consumer's thread, so
        #: that nothing is missed that the loop has not begun yet.
        self.running: dict[int, Delivery] = {}
        #: The free places. The consumer's thread takes them, the loop's thread gives them back.
        self._places = list(range(board.places - concurrency, board.places))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.finished = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._care = Care()
        #: The worker's own context, of which each task gets a copy.
        self._context = contextvars.copy_context()
        #: The next look at the connections.
        self._look: asyncio.TimerHandle | None = None

    batch = 1
    drained = False
    patience = AHEAD
    #: The loop begins what is submitted as soon as it can, so nothing is there to be taken back.
    unstarted: Collection[Delivery] = ()

    @property
    def busy(self) -> int:
        return self.width - len(self._places)

    @property
    def idle(self) -> bool:
        return len(self._places) == self.width

    def overrun(self) -> bool:
        return False

    def room(self, most: int, missing: int) -> int:
        return min(len(self._places), most) if self.wanted else 0

    def take_back(self) -> list[Delivery]:
        return []

    def submit(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        # The claim was sized for synchronous tasks as well: it may have brought too many.
        free = len(self._places)
        begun = {self._places.pop(): delivery for delivery in deliveries[:free]}
        if not begun:
            return deliveries
        self.running.update(begun)
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_default_executor(Executor())
            self._thread = threading.Thread(
                target=vital(self._run_loop), name="jobs-async", daemon=True
            )
            self._thread.start()

        def begin() -> None:
            for place, delivery in begun.items():
                self._spawn(self._one(place, delivery), self._context.copy())

        self._loop.call_soon_threadsafe(begin)
        return deliveries[free:]

    def stop(self) -> None:
        """Wait until everything submitted has ended, and end the loop."""
        if self._loop is None or self._thread is None:
            return

        async def finish() -> None:
            while self._tasks:
                await asyncio.wait(self._tasks)
            await waiting.leave()

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result()
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run_loop(self) -> None:
        assert self._loop is not None
        while not self._stopping:
            # Again, if a task stops the loop, or starts another that raises SystemExit.
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                log.exception("something that a task has started would end the event loop")

    def _spawn(
        self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context | None = None
    ) -> None:
        assert self._loop is not None
        task = self._loop.create_task(coroutine, context=context)
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _one(self, place: int, delivery: Delivery) -> None:
        hard = self._limits.hard(delivery.message, delivery.task)
        now = time.monotonic()
        ends = math.inf if hard is None else now + hard
        self._board.begin(place, key(delivery.queue, delivery.number), ends, now)
        try:
            if delivery.task.acks_early:
                if not await asyncio.to_thread(ack_early, delivery, self._worker):
                    self.done(lost(delivery))
                    return
                delivery = replace(delivery, held=False)
            outcome = await executor.run_async(delivery, self._worker, self._limits)
            self.done(after_run(outcome, delivery))
            self.finished += 1
            self._look_after_connections(failed=outcome.failed)
        except BaseException as error:  # noqa: BLE001  it is logged there
            end(error)  # or nobody would see it, and the delivery would have no outcome
        finally:
            self._board.end(place)
            del self.running[place]
            self._places.append(place)
            self._recorder.freed.set()

    def _look_after_connections(self, *, failed: bool) -> None:
        """At most once a second, but soon after a task that failed: see `Care`. In the thread in
        which Django works for this loop."""
        assert self._loop is not None

        def look() -> None:
            self._look = None
            self._spawn(sync_to_async(self._care.now)())

        if self._look is not None and failed:
            self._look.cancel()
            self._look = None
        if self._look is None:
            self._look = self._loop.call_later(0 if failed else 1.0, look)


# --------------------------------------- tasks acknowledged before they run (``acks="early"``)


def lost(delivery: Delivery) -> Outcome:
    """The outcome of a delivery that another worker has now, with the slots that it held."""
    keeper.forget(delivery.slots)
    return Done(delivery.queue, delivery.number, held=False, failed=True)


def ack_early(delivery: Delivery, consumer: str) -> bool:
    """Acknowledge a delivery before it runs: from here on it can be lost, but not run twice. False:
    another worker has it now."""
    while True:
        try:
            return bool(broker.get().ack(delivery.queue, consumer, [delivery.number]))
        except BrokerUnavailable:
            time.sleep(1.0)  # the supervisor logs that it is away
