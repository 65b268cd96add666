"""A child process of a worker: a whole consumer, with its own connections.

`Options` is what `runworker` was asked for, as a value that the supervisor hands to its children.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.db import connections

from jobs import broker, conf, message, signals
from jobs.exceptions import BrokerUnavailable, ConfigurationError, shown
from jobs.registry import tasks
from jobs.running import notes
from jobs.running.iteration import Process
from jobs.worker import lines
from jobs.worker.board import Board
from jobs.worker.claim.consumer import Consumer, Order
from jobs.worker.record.outcome import Outcome
from jobs.worker.record.recorder import Recorder
from jobs.worker.run import isolation
from jobs.worker.run.executor import Limits, MainThreadTimer, ThreadTimer, Timer
from jobs.worker.run.runners import AsyncRunner, Runners, SyncRunners

#: In what order a worker can take from several queues: `jobs.worker.claim.order`.
ORDERS = ("strict", "weighted", "round-robin")

_HEAVIEST = 1000

#: Most characters of a worker's name. The ledger's column has 255; a child's name adds its number.
_LONGEST_NAME = 200


def largest_batch() -> int:
    """Most calls of one batch, of all tasks known here; 1 if none takes batches."""
    return max([task.batch or 1 for task in tasks.values()], default=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    queues: tuple[str, ...]
    name: str
    #: Each queue's share of what is claimed while all have messages; empty: the queues are claimed
    #: from in their order.
    weights: tuple[int, ...] = ()
    #: How many children.
    processes: int = 1
    #: Threads for synchronous tasks in each child; 0: its main thread.
    threads: int = 0
    #: ``async def`` tasks at once in each child.
    concurrency: int = 100
    #: Seconds, for tasks that have no limits of their own; None: no limit.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: Kilobytes of memory beyond which a child is replaced after a call; 0: never.
    max_memory_per_child: int = 0
    #: End when the queues are empty.
    burst: bool = False
    reload: bool = False
    #: A file to be touched at each renewal of the leases while a child claims messages, and removed
    #: at the end; empty: none.
    health_file: str = ""
    #: A line for each call that begins and ends.
    verbose: bool = False
    #: Most calls of one batch, of the tasks that the supervisor knows.
    batch: int = dataclasses.field(default_factory=largest_batch)

    def __post_init__(self) -> None:
        declared = conf.get().queues
        for name in self.queues:
            if not conf.get().knows(name):
                raise ConfigurationError(
                    f"Queue {name!r} is not declared in JOBS['QUEUES']."
                    f"{conf.nearest(name, declared)}"
                )
        if len(set(self.queues)) < len(self.queues):
            raise ConfigurationError(f"A queue is named twice: {', '.join(self.queues)}.")
        if self.weights and len(self.weights) != len(self.queues):
            raise ConfigurationError("Either each queue of a worker has a weight, or none has.")
        if any(weight not in range(1, _HEAVIEST + 1) for weight in self.weights):
            raise ConfigurationError(f"A queue's weight is a whole number from 1 to {_HEAVIEST}.")
        for limit in (self.time_limit, self.soft_time_limit):
            if limit is not None and limit <= 0:
                raise ConfigurationError(f"A time limit must be more than 0 s, not {limit:g}.")
        if self.max_memory_per_child < 0:
            raise ConfigurationError(
                "The memory of a child is a number of kilobytes from 0, not "
                f"{self.max_memory_per_child}."
            )
        if self.health_file and not Path(self.health_file).absolute().parent.is_dir():
            raise ConfigurationError(f"There is no folder for the file {self.health_file!r}.")
        if len(self.name) > _LONGEST_NAME or not message.is_name(self.name):
            raise ConfigurationError(
                f"A worker's name is a text of 1 to {_LONGEST_NAME} characters that the ledger can "
                f"keep, not {shown(self.name, 60)} of {len(self.name)}: give another --name."
            )
        if self.processes < 1 or self.threads < 0 or self.concurrency < 1:
            raise ConfigurationError(
                "A worker needs at least 1 process, 0 threads and a concurrency of 1."
            )

    @property
    def places(self) -> int:
        """How many calls a child can run at once: the size of its board."""
        return max(1, self.threads) * self.batch + self.concurrency

    def dumps(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Options:
        values = json.loads(text)
        tuples = {name: tuple(values[name]) for name in ("queues", "weights")}
        return cls(**values | tuples)


def default_name() -> str:
    return f"worker-{os.getpid()}@{socket.gethostname()}"[:_LONGEST_NAME]


def split(queues: str, order: str = "") -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and weights from a comma-separated list such as ``high:6,default:3,low``; from an empty
    one, all declared queues of this program's workers. ``order``: one of `ORDERS`; empty: weighted
    if a queue has a weight.

    Raises `ConfigurationError` for weights together with another order, and for a queue that
    Celery's workers work.
    """
    declared = conf.get().queues
    names, weights = [], []
    for text in filter(None, map(str.strip, queues.split(","))):
        name, colon, weight = text.rpartition(":")
        if not colon or text in declared:
            name, weight = text, ""
        elif not weight.strip().isdecimal() or int(weight) == 0:
            raise ConfigurationError(
                f"The weight of queue {name.strip()!r} must be a whole number from 1, not "
                f"{weight.strip()!r}."
            )
        names.append(name.strip())
        weights.append(int(weight or 0))
    for name in names:
        if name in conf.foreign_queues():
            raise ConfigurationError(
                f"Queue {name!r} has 'foreign_workers' in JOBS['QUEUES']: Celery's workers take "
                "its calls. Leave it out of --queues, or take the option out once they have "
                "stopped."
            )
    if not names:
        names = [name for name in declared if name not in conf.foreign_queues()]
        weights = [0] * len(names)
    if any(weights) and order not in ("", "weighted"):
        raise ConfigurationError(f"Weights are given, and the order {order!r}; give one of them.")
    if any(weights) or order in ("weighted", "round-robin"):
        return tuple(names), tuple(weight or 1 for weight in weights)
    return tuple(names), ()


class Child:
    def __init__(self, consumer: str, options: Options, board: Board) -> None:
        self.name = consumer
        self.options = options
        self.board = board
        self.recorder = Recorder(consumer, tells_celery=conf.get().celery_events)
        timer: Timer = ThreadTimer() if options.threads else MainThreadTimer()
        limits = Limits(timer, soft=options.soft_time_limit, hard=options.time_limit)
        self.sync = SyncRunners(consumer, board, limits, self.recorder, batch=options.batch)
        self.loop = AsyncRunner(consumer, options.concurrency, board, limits, self.recorder)
        self.consumer = Consumer(
            consumer,
            Order(options.queues, options.weights),
            Runners(self.sync, self.loop),
            self.recorder,
            board,
            burst=options.burst,
            most_memory=options.max_memory_per_child * 1024,
            stop=self.stop,
        )
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self) -> None:
        """Work until SIGTERM, or with ``burst`` until the queues are empty; then drain."""
        threads, queues = self.options.threads, self.options.queues
        with isolation.watching_connections():
            signal.signal(signal.SIGTERM, lambda *_: self.stop())
            Process.stopping = False
            self.recorder.start()
            if threads:
                self.sync.start(threads)
            if self.options.verbose:
                lines.tell_each_call()
            # Before the first claim, whose tasks may run at once in other threads than this one.
            signals.announce(signals.worker_ready, self.name, queues=queues)
            # After that: what receivers set up, every task is to find.
            isolation.remember()
            self.board.note_tasks(sorted(tasks))
            self.consumer.start()
            self.board.set_ready()
            if threads:
                self._stop.get()  # ended by stop()
            else:
                self.sync.run()
            signals.announce(signals.worker_stopping, self.name, queues=queues)
            self.consumer.join()
            self.sync.join()
            self.loop.stop()
            self.recorder.stop()
            if notes.sender.thread:
                notes.sender.stop()
            connections.close_all()
            try:
                for name in broker.get().attended(self.consumer.shards):
                    broker.get().leave(name, self.name)
            except BrokerUnavailable:
                pass  # the supervisor does it, or the lease ends
            # Last: an end before this counts as a crash, whatever the exit status.
            self.board.set_over(spent=self.consumer.spent)

    def stop(self) -> None:
        """Claim nothing more, and let what runs finish; loops of `iterate` end at their next step.
        Safe in a signal handler: putting into a `SimpleQueue` may interrupt another put."""
        Process.stopping = True
        self.consumer.stop()
        self.sync.stop()
        self._stop.put(None)

    def end_tasks_by(self, done: Callable[[Outcome], None]) -> None:
        """Hand outcomes to ``done`` from now on."""
        self.sync.done = self.loop.done = done
