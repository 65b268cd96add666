"""A worker in the caller's thread, which runs one call after the other.

A child does three things in three threads: it claims, runs and records. `Inline` does the same in
turn, by the same code, on the caller's database connections and inside its transaction if there is
one. Tests use it (`jobs.testing`), and so do calls that run where they are sent
(``JOBS["ALWAYS_EAGER"]``).
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from asgiref.sync import async_to_sync
from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs import broker, conf, ledger, signals
from jobs.broker.base import Claim
from jobs.broker.memory import MemoryBroker
from jobs.broker.sharding import queue_of
from jobs.exceptions import TaskRevoked, TooManyCalls, WorkflowError
from jobs.ledger import publish
from jobs.ledger.refusals import is_refusal
from jobs.message import Message, decode, encode
from jobs.running import notes
from jobs.running.request import eager
from jobs.states import State
from jobs.worker.claim import admission
from jobs.worker.claim.consumer import Gathering
from jobs.worker.record.outcome import Delivery, Later, Outcome, Run, after_run, each
from jobs.worker.record.recorder import Recorder, write
from jobs.worker.run import executor
from jobs.worker.run.executor import Limits, ThreadTimer
from jobs.worker.run.isolation import Care

_T = TypeVar("_T")

#: Seconds for which what was claimed belongs to this thread. Nobody renews it.
_LEASE = 86_400.0

#: Most calls of one batch.
_BATCH = 1000

#: Most calls that one `Inline.run` makes: more of them probably send each other for ever.
MOST = 10_000

_numbers = itertools.count(1)

#: Whether a time limit can end a task here is up to one watcher thread, shared by all runs.
_timer = ThreadTimer()


@dataclass(slots=True)
class Applied:
    """How a call that was run here has ended."""

    id: str
    #: One of `jobs.states.TERMINAL`; empty while it runs.
    state: State | str = ""
    #: What it returned, or the exception that ended it.
    value: Any = None
    traceback: str = ""


class _Careless(Care):
    """Leaves connections alone: they are the caller's."""

    def now(self) -> None:
        pass


class _Recorder(Recorder):
    """Writes in the caller's thread. What the database or the broker can't do is the caller's
    error: there is nobody to wait for."""

    def __init__(self, consumer: str) -> None:
        super().__init__(consumer)
        self._care = _Careless()

    def _persist(self, step: Callable[..., _T], *args: Any, of_queue: bool = False) -> _T:
        return step(*args)

    def _tell(self, told: list[signals.Announcement]) -> None:
        for one in told:  # here, where the caller's transaction is seen
            signals.announce(one.signal, one.sender, **one.named)

    def _try(self, part: list[Outcome]) -> list[Outcome] | Exception:
        try:
            if not connections[ledger.alias()].in_atomic_block:
                return write(part)
            # A statement that is refused would make the caller's transaction unusable.
            with transaction.atomic(using=ledger.alias()):
                return write(part)
        except Exception as error:
            if not is_refusal(error):
                raise
            return error


class Inline:
    """Runs what waits on queues, in the caller's thread."""

    def __init__(self, queues: Sequence[str] = (), name: str = "") -> None:
        """``queues``: in the order in which they are asked; by default all that the settings
        declare, and those that the broker remembers."""
        self.name = name or f"inline-{os.getpid()}.{next(_numbers)}"
        self._queues = queues
        #: Queue → the number of its next delivery.
        self._next: dict[str, int] = {}
        self._recorder = _Recorder(self.name)
        self._limits = Limits(_timer)
        self._gathering = Gathering(_BATCH)
        #: The messages of the calls that were run, in order, an element for each attempt.
        self.ran: list[Message] = []
        #: Id → the error with which the call has failed.
        self.errors: dict[str, BaseException] = {}

    def run(self, *, until: float | None = None, most: int = MOST) -> None:
        """Run everything that waits, with what that sends, and return when nothing is left.

        Another attempt of a call that has failed is made at once, however long its delay. Calls
        that were sent with a countdown or an eta wait, unless they fall due by ``until`` (Unix
        seconds) and the broker is the one in memory: then its clock goes from one to the next.
        Raises `TooManyCalls` after ``most`` attempts.
        """
        signals.task_failed.connect(self._note_error, weak=False, dispatch_uid=self.name)
        try:
            while True:
                publish_waiting()
                if self._step() or self._travel(until):
                    if len(self.ran) > most:
                        raise TooManyCalls(
                            f"{most} calls were run, and more are waiting, such as of task "
                            f"{self.ran[-1].task!r}. Does it send itself, or requeue its message? "
                            "If that ends, give a higher number by most=."
                        )
                    continue
                if not self._gathering:
                    return
                for batch in self._gathering.take_back():
                    self._run(batch)
        finally:
            signals.task_failed.disconnect(dispatch_uid=self.name)
            if notes.sender.thread:
                notes.sender.stop()  # what tasks have said of their progress is there now

    def _note_error(self, message: Message, exception: BaseException, **_: Any) -> None:
        self.errors[message.id] = exception

    def _step(self) -> bool:
        """Claim one message of the first queue that has any, and run it. Whether there was one."""
        queues = broker.get().all_shards(self._queues or known_queues())
        for queue in itertools.chain.from_iterable(queues.values()):
            number = self._next.setdefault(queue, 1)
            claim = broker.get().claim(queue, self.name, number, 1, _LEASE)
            if claim.resume is not None:
                self._next[queue] = claim.resume
                return True
            if claim.messages:
                self._next[queue] = number + 1
                self._take(queue, claim)
                return True
        return False

    def _take(self, queue: str, claim: Claim) -> None:
        ((number, raw),) = claim.messages
        one = admission.prepare(
            queue, number, raw, worker=self.name, now=_clock(), claimed=math.inf
        )
        if isinstance(one, Outcome):
            self._record(one)
            return
        answer = admission.admit(queue, claim, [one], Run(self.name, time.time()))
        for outcome in answer.outcomes:
            self._record(outcome)
        for delivery in self._gathering.add(answer.deliveries, math.inf):
            self._run(delivery)

    def _run(self, delivery: Delivery) -> None:
        deliveries = each([delivery])
        self.ran += [one.message for one in deliveries]
        with _commits_of_its_own():
            outcomes = _executed(deliveries, self.name, self._limits)
        for outcome, one in zip(outcomes, deliveries, strict=True):
            self._record(after_run(outcome, one))

    def _record(self, outcome: Outcome) -> None:
        if outcome.record and outcome.record.error_type == "builtins.KeyboardInterrupt":
            raise KeyboardInterrupt  # meant for this process, not for the task that runs in it
        self._recorder.add(outcome)
        with _commits_of_its_own():
            self._recorder.step()
        if isinstance(outcome, Later) and outcome.attempt is not None:
            queue = outcome.to.queue if outcome.to else outcome.queue
            broker.get().hasten(queue, outcome.raw, outcome.priority)

    def _travel(self, until: float | None) -> bool:
        """Move the clock of the broker to the next message that is due by then. Whether there was
        one."""
        memory = broker.by_shard()
        if until is None or not isinstance(memory, MemoryBroker):
            return False
        due = [
            one.due
            for queue in self._queues or known_queues()
            for one in broker.get().peek_due(queue, 1)
            if one.due is not None and one.due <= until
        ]
        if not due:
            return False
        memory.move_clock(min(due))
        return True


def known_queues() -> list[str]:
    """The queues of the settings, and the others that the broker remembers, but those of Celery's
    workers: nobody knows whether their tasks are here."""
    theirs = frozenset() if conf.get().always_eager else conf.foreign_queues()
    known = [*conf.get().queues, *broker.get().remembered_queues(1000)]
    return [queue for queue in dict.fromkeys(known) if queue not in theirs]


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    token = eager.set(True)
    try:
        yield
    finally:
        eager.reset(token)


def run_here(messages: Sequence[Message]) -> None:
    """Run calls now, with all that follows them, whenever they are due: for
    ``JOBS["ALWAYS_EAGER"]``.

    With ``JOBS["EAGER_PROPAGATES"]``, raises the error of the first of these calls that has failed.
    """
    for one in messages:
        one.eta = None
    broker.get().push([publish.outgoing_of(one) for one in messages])
    inline = Inline()
    with _eagerly():
        inline.run(until=math.inf)
    if conf.get().eager_propagates:
        for one in messages:
            if one.id in inline.errors:
                raise inline.errors[one.id]


def apply(sent: Message) -> Applied:
    """Run one call now, with its attempts and what follows it, and record nothing: for
    `Task.apply`."""
    ends = Applied(sent.id)

    def note_success(message: Message, result: Any, **_: Any) -> None:
        if message.id == sent.id:
            ends.state, ends.value = State.SUCCESS, result

    def note_failure(message: Message, exception: BaseException, **_: Any) -> None:
        if message.id == sent.id:
            ends.state, ends.value = State.FAILURE, exception
            ends.traceback = "".join(traceback.format_exception(exception))

    key = f"apply {sent.id}"
    signals.task_succeeded.connect(note_success, weak=False, dispatch_uid=key)
    signals.task_failed.connect(note_failure, weak=False, dispatch_uid=key)
    try:
        with _eagerly():
            _apply(sent, ends)
    finally:
        signals.task_succeeded.disconnect(dispatch_uid=key)
        signals.task_failed.disconnect(dispatch_uid=key)
    return ends


def _apply(sent: Message, ends: Applied) -> None:
    limits = Limits(_timer)
    waiting = [sent]
    while waiting:
        one = waiting.pop(0)
        one.eta = None
        raw, name = encode(one), f"inline-{os.getpid()}.{next(_numbers)}"
        delivery = admission.prepare(one.queue, 0, raw, worker=name, now=time.time(), trusted=True)
        if isinstance(delivery, Outcome):
            outcome = delivery
        else:
            (outcome,) = _executed([delivery], name, limits)
        if isinstance(outcome, Later) and outcome.attempt is not None:
            queue = queue_of(outcome.to.queue) if outcome.to else one.queue
            waiting.insert(0, decode(outcome.raw, queue, trusted=True))
        elif one.id == sent.id and not ends.state:
            # It ended without being run, or by Ignore: its record says how.
            record = outcome.record
            ends.state = State(record.state) if record else State.REVOKED
            ends.value = TaskRevoked(record.error if record else "")
        if outcome.following.chords:
            raise WorkflowError(
                f"apply() of task {sent.task!r} runs calls here, and a chord that follows is "
                "joined by workers: send it by delay()."
            )
        waiting += outcome.following.messages


def _executed(deliveries: Sequence[Delivery], worker: str, limits: Limits) -> list[Outcome]:
    """Call the task of these deliveries, which are several for a batch, and return their
    outcomes."""
    first = deliveries[0]
    if first.task.batch:
        return executor.run_batch(deliveries, worker, limits)
    if first.task.is_async:
        # In a context of its own: what the task sets there would come back with the call.
        context = contextvars.copy_context()
        return [context.run(async_to_sync(executor.run_async), first, worker, limits)]
    return [executor.run(first, worker, limits)]


def publish_waiting() -> None:
    """Publish the calls that wait for the end of this thread's open transactions, as if they had
    been committed. Such transactions are those that a ``TestCase`` opens."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            publish.publish_waiting(connection)


def _clock() -> float:
    """Unix seconds by the broker's clock, which may have been moved."""
    found = broker.by_shard()
    return found.now() if isinstance(found, MemoryBroker) else time.time()


@contextlib.contextmanager
def _commits_of_its_own() -> Iterator[None]:
    """Inside a transaction of the caller's, let a call find what it would find in a worker, where
    none is open: a statement that fails leaves the transaction usable, and what waits for the
    commit is done at the end of the call."""
    held: list[tuple[BaseDatabaseWrapper, str, int]] = []
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            point = str(connection.savepoint())
            held.append((connection, point, len(connection.run_on_commit)))
    yield
    for connection, point, hooks in held:
        broken = connection.needs_rollback
        if not broken:
            try:
                connection.savepoint_commit(point)
            except DatabaseError:
                broken = True
        if broken:
            connection.needs_rollback = False
            connection.savepoint_rollback(point)
            del connection.run_on_commit[hooks:]
        waiting = connection.run_on_commit[hooks:]
        del connection.run_on_commit[hooks:]
        for _, hook, *_ in waiting:
            hook()
