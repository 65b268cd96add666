"""A child process of a worker: a whole consumer, with its own connections."""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable
from types import FrameType

from django.db import connections

from jobs import broker, signals
from jobs.exceptions import BrokerUnavailable
from jobs.running import notes
from jobs.running.iteration import Process
from jobs.worker.board import Board
from jobs.worker.claim.consumer import Consumer
from jobs.worker.options import Options
from jobs.worker.record.outcome import Outcome
from jobs.worker.record.recorder import Recorder
from jobs.worker.run import database, isolation
from jobs.worker.run.loop import AsyncRunner
from jobs.worker.run.threads import SyncRunners
from jobs.worker.run.time_limits import (
    Limits,
    MainThreadTimer,
    ThreadTimer,
    Timer,
)


class Child:
    def __init__(self, consumer: str, options: Options, board: Board) -> None:
        self.name = consumer
        self.options = options
        self.board = board
        self.recorder = Recorder(consumer)
        timer: Timer = ThreadTimer() if options.threads else MainThreadTimer()
        limits = Limits(timer, soft=options.soft_time_limit, hard=options.time_limit)
        self.sync = SyncRunners(
            consumer,
            board,
            limits,
            self.recorder.add,
            self.recorder.flush,
            batch=options.batch,
            crowded=lambda: self.recorder.crowded,
        )
        self.loop = AsyncRunner(
            consumer, options.concurrency, board, limits, self.recorder.add, self.sync.freed
        )
        self.consumer = Consumer(
            consumer,
            options.queues,
            self.sync,
            self.loop,
            self.recorder,
            board,
            weights=options.weights,
            batch=options.batch,
            burst=options.burst,
            stop=self.stop,
        )
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self) -> None:
        """Work until SIGTERM, or with ``burst`` until the queues are empty; then drain."""
        with database.watching():
            self._run()

    def _run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        Process.stopping = False
        isolation.remember()
        self.recorder.start()
        if self.options.threads:
            self.sync.start(self.options.threads)
        # First: what the consumer claims may run at once, in other threads than this one.
        signals.announce(signals.worker_ready, self.name, queues=self.options.queues)
        self.consumer.start()
        self.board.set_ready()
        if self.options.threads:
            self._stop.get()
        else:
            self.sync.run()
        signals.announce(signals.worker_stopping, self.name, queues=self.options.queues)
        self._drain()

    def stop(self) -> None:
        """Claim nothing more and finish what runs, loops of `iterate` at their next step. Safe in
        a signal handler: a `SimpleQueue` may be put to while it is being put to."""
        Process.stopping = True
        self.consumer.stop()
        self.sync.stop()
        self._stop.put(None)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self.stop()

    def end_tasks_by(self, done: Callable[[Outcome], None]) -> None:
        """Hand outcomes to this from here on."""
        self.sync.done = self.loop.done = done

    def _drain(self) -> None:
        self.consumer.join()
        self.sync.join()
        self.loop.stop()
        self.recorder.stop()
        notes.sender.stop()
        connections.close_all()
        try:
            for name in self.options.queues:
                broker.get().leave(name, self.name)
        except BrokerUnavailable:
            pass  # the supervisor, or the end of the lease, sees to it
        # Last: an end that comes before is none that was meant, whatever its exit status.
        self.board.set_over()
