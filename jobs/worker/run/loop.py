"""Where ``async def`` tasks run: on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from asgiref.sync import sync_to_async

from jobs.registry import tasks
from jobs.worker.board import Board, key
from jobs.worker.loops import end, vital
from jobs.worker.record.outcome import Delivery, Outcome
from jobs.worker.run import executor
from jobs.worker.run.database import Care, Executor
from jobs.worker.run.early import ack_early, lost
from jobs.worker.run.time_limits import Limits

log = logging.getLogger("jobs.worker")


class AsyncRunner:
    """Runs ``async def`` tasks on an event loop in a thread of its own, started at first use."""

    def __init__(
        self,
        worker: str,
        concurrency: int,
        board: Board,
        limits: Limits,
        done: Callable[[Outcome], None],
        freed: threading.Event,
    ):
        """``board``: its last ``concurrency`` places are those of this runner."""
        self._worker = worker
        self._board = board
        self._limits = limits
        #: What is running now, by place on the board.
        self.deliveries: dict[int, Delivery] = {}
        self._places = list(range(board.places - concurrency, board.places))
        self.concurrency = concurrency
        #: Whether there is any task for it.
        self.wanted = any(task.is_async for task in tasks.values())
        #: What becomes of an outcome.
        self.done = done
        self._freed = freed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.finished = 0
        #: Counted by the loop's thread and by the consumer's.
        self.running = 0
        self._counting = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._care = Care()
        #: The worker's own, of which each task gets a copy.
        self._context = contextvars.copy_context()
        #: The next look at the connections of the thread in which Django works for this loop.
        self._look: asyncio.TimerHandle | None = None

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        if self._loop is None:
            self._start()
        assert self._loop is not None
        with self._counting:
            self.running += len(deliveries)
        self._loop.call_soon_threadsafe(self._begin, deliveries)

    def stop(self) -> None:
        """Return when all that was submitted has ended."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(Executor())
        self._thread = threading.Thread(
            target=vital(self._run_loop), name="jobs-async", daemon=True
        )
        self._thread.start()

    def _run_loop(self) -> None:
        assert self._loop is not None
        while not self._stopping:
            # A task that stops the loop, or starts another that raises SystemExit, ends it for all.
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                log.exception("something that a task has started would end the event loop")

    def _begin(self, deliveries: Sequence[Delivery]) -> None:
        assert self._loop is not None
        for delivery in deliveries:
            task = self._loop.create_task(self._one(delivery), context=self._context.copy())
            self._tasks.add(task)  # the loop itself keeps only weak references
            task.add_done_callback(self._tasks.discard)

    async def _one(self, delivery: Delivery) -> None:
        # Only this thread takes and gives places; there are as many as tasks at once.
        place = self._places.pop()
        hard = self._limits.hard(delivery.message, delivery.task)
        now = time.monotonic()
        ends = math.inf if hard is None else now + hard
        self._board.begin(place, key(delivery.queue, delivery.number), ends, now)
        self.deliveries[place] = delivery
        try:
            early = delivery.task.acks_early
            if early and not await asyncio.to_thread(ack_early, delivery, self._worker):
                self.done(lost(delivery))
                return
            outcome = await executor.run_async(delivery, self._worker, self._limits)
            self.done(outcome.of(delivery, held=not early))
            self.finished += 1
            self._look_after_connections(failed=outcome.failed)
        except BaseException as error:  # noqa: BLE001  it is logged there
            end(error)  # nobody else would see it, and the delivery would have no outcome
        finally:
            self._board.end(place)
            del self.deliveries[place]
            self._places.append(place)
            with self._counting:
                self.running -= 1
            self._freed.set()

    def _look_after_connections(self, *, failed: bool) -> None:
        """At most once a second, but soon after a task that failed: see `Care`."""
        assert self._loop is not None
        if self._look is not None and failed:
            self._look.cancel()
            self._look = None
        if self._look is None:
            self._look = self._loop.call_later(0 if failed else 1.0, self._begin_look)

    def _begin_look(self) -> None:
        assert self._loop is not None
        self._look = None
        look = self._loop.create_task(sync_to_async(self._care.now)())
        self._tasks.add(look)
        look.add_done_callback(self._tasks.discard)

    async def _finish(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
