"""What a project's tests need: what was sent, and a worker in the test's own thread.

::

    class OrderTests(JobsMixin, TestCase):
        def test_the_invoice_is_sent(self):
            place_order(pk=7)
            self.assertEnqueued(send_invoice, args=(7,))
            self.run_jobs()
            self.assertEqual(len(mail.outbox), 1)

With pytest there is nothing to inherit: ask for the fixtures ``enqueued`` and ``run_jobs``
(`jobs.contrib.pytest_plugin`). docs/testing.md has more of it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
import unittest
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from asgiref.sync import sync_to_async
from django.db import connections

from jobs import beat, broker, conf, ledger, signals
from jobs.api.results import AsyncResult
from jobs.api.task import Task
from jobs.broker.memory import MemoryBroker
from jobs.exceptions import JobsError
from jobs.message import Message
from jobs.models import Schedule
from jobs.timing import clock
from jobs.worker import inline

__all__ = [
    "Enqueued",
    "JobsMixin",
    "Sent",
    "arun_jobs",
    "in_memory",
    "run_jobs",
    "worker",
]


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was sent."""

    #: The task's name.
    task: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queue: str
    priority: int
    #: Before which it doesn't run; None: at once.
    eta: dt.datetime | None
    expires: dt.datetime | None
    label: str
    #: The caller's own headers.
    headers: Mapping[str, Any]
    id: str
    #: Whether a transaction was open when it was sent, so that a rollback takes it back.
    in_transaction: bool = field(default=False, repr=False)

    @property
    def result(self) -> AsyncResult[Any]:
        return AsyncResult(self.id)


class Enqueued(Sequence[Sent]):
    """The calls that were sent, the first one first, without those whose transaction was rolled
    back. Calling it gives those that match::

        enqueued(send_invoice, args=(7,))
        enqueued(queue="mail", eta=lambda eta: eta > tomorrow)

    What it is given for args, kwargs, queue, priority, eta, expires, label and headers is compared
    by ``==``, so `unittest.mock.ANY` fits anything; a function is called with the value instead.
    """

    def __init__(self) -> None:
        self._all: list[Sent] = []

    def _kept(self) -> list[Sent]:
        doubtful = [one.id for one in self._all if one.in_transaction]
        if not doubtful:
            return self._all
        rows = ledger.results().filter(id__in=doubtful)
        there = set(rows.values_list("id", flat=True))
        return [one for one in self._all if not one.in_transaction or one.id in there]

    def __call__(self, task: Task[..., Any] | str | None = None, /, **wanted: Any) -> list[Sent]:
        """Those of this task that are as wanted; see the class. Raises `TypeError` for a name that
        a call doesn't have."""
        if wrong := wanted.keys() - Sent.__dataclass_fields__.keys():
            raise TypeError(f"A call that was sent has no {min(wrong)!r}.")
        name = task.name if isinstance(task, Task) else task
        return [
            one
            for one in self._kept()
            if (name is None or one.task == name)
            and all(_fits(getattr(one, key), value) for key, value in wanted.items())
        ]

    def clear(self) -> None:
        """Forget what was sent so far. It waits for its worker all the same."""
        self._all.clear()

    @overload
    def __getitem__(self, index: int) -> Sent: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sent]: ...
    def __getitem__(self, index: int | slice) -> Sent | list[Sent]:
        return self._kept()[index]

    def __len__(self) -> int:
        return len(self._kept())

    def __iter__(self) -> Iterator[Sent]:
        return iter(self._kept())

    def __repr__(self) -> str:
        return f"<Enqueued: {self._all}>"

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Note what is sent inside of this block."""
        signals.task_enqueued.connect(self._note, weak=False, dispatch_uid=id(self))
        try:
            yield
        finally:
            signals.task_enqueued.disconnect(dispatch_uid=id(self))

    def _note(self, message: Message, **_: Any) -> None:
        self._all.append(
            Sent(
                message.task,
                tuple(message.args),
                dict(message.kwargs),
                message.queue,
                message.priority,
                message.eta,
                message.expires,
                message.label,
                dict(message.headers),
                message.id,
                bool(message.ledger),
            )
        )


def _fits(value: Any, wanted: Any) -> bool:
    if callable(wanted):
        return bool(wanted(value))
    if isinstance(value, tuple) and isinstance(wanted, list):
        return value == tuple(wanted)
    return bool(value == wanted)


@contextlib.contextmanager
def in_memory() -> Iterator[Enqueued]:
    """Use an empty broker in this process's memory inside of the block, whatever the settings name.
    Gives what is sent meanwhile."""
    sent = Enqueued()
    current = conf.peek()
    own = MemoryBroker(steps=current.priority_steps, metrics=current.metrics)
    with broker.instead(own), sent.recording():
        yield sent


def run_jobs(
    *queues: str,
    ahead: float | dt.timedelta = 0,
    propagate: bool | None = None,
    most: int = inline.MOST,
) -> list[AsyncResult[Any]]:
    """Run everything that waits, with all that it sends, in this thread, on its database
    connections and inside its transaction. The handles of the calls that were run, in that order.

    The same code runs the calls as in a worker: arguments go through JSON, results are recorded,
    another attempt follows a failed one (at once, whatever its delay), chains go on and chords are
    joined. Calls that wait for the commit are run as well, since the transaction of a ``TestCase``
    never commits.

    ``queues``: only these; by default all.
    ``ahead``: also run what falls due within so many seconds, calls with a countdown or an eta and
    schedules, each at its time.
    ``propagate``: raise the first error with which a call has failed, once everything has run;
    by default as JOBS["EAGER_PROPAGATES"] says.
    ``most``: more attempts than these are an error, `TooManyCalls`.
    """
    span = ahead.total_seconds() if isinstance(ahead, dt.timedelta) else float(ahead)
    if span < 0:
        raise ValueError("run_jobs() can't go back in time.")
    running = inline.Inline(queues)
    try:
        if span:
            until = time.time() + span
            _fire(running, until, most)
            running.run(until=until, most=most)
        else:
            running.run(most=most)
    finally:
        found = broker.by_shard()
        if isinstance(found, MemoryBroker):
            found.move_clock(None)
    if conf.get().eager_propagates if propagate is None else propagate:
        for error in running.errors.values():
            raise error
    return [AsyncResult(task_id) for task_id in dict.fromkeys(one.id for one in running.ran)]


arun_jobs = sync_to_async(run_jobs)
arun_jobs.__doc__ = "`run_jobs`, from async tests."


def _fire(running: inline.Inline, until: float, most: int) -> None:
    """Let the schedules that fall due by ``until`` send their calls, each at its time, and run the
    calls that are due before each of them."""
    end = dt.datetime.fromtimestamp(until, dt.UTC)
    beat.tick(clock.now())  # gives new schedules their first due time
    while True:
        enabled = Schedule.objects.filter(enabled=True, next_run_at__lte=end)
        due = enabled.order_by("next_run_at").values_list("next_run_at", flat=True).first()
        if due is None:
            return
        running.run(until=clock.aware(due).timestamp(), most=most)
        beat.tick(clock.aware(due))
        running.run(until=clock.aware(due).timestamp(), most=most)


@contextlib.contextmanager
def worker(*queues: str) -> Iterator[None]:
    """Run calls in a thread of this process while the block runs, such as for a test with a
    browser. Not inside a transaction, whose rows another thread doesn't see: with a ``TestCase``,
    call `run_jobs`."""
    if any(c.in_atomic_block for c in connections.all(initialized_only=True)):
        raise JobsError(
            "worker() runs calls in another thread, which sees nothing of the transaction that is "
            "open here. Call run_jobs(), or use TransactionTestCase (pytest: transactional_db)."
        )
    stopping = threading.Event()
    errors: list[BaseException] = []
    every: Sequence[Any] = connections.all()
    # SQLite in memory: each further connection would be another database.
    shared = {c.alias: c for c in every if c.vendor == "sqlite" and c.is_in_memory_db()}
    for connection in shared.values():
        connection.inc_thread_sharing()

    def work() -> None:
        for alias, connection in shared.items():
            connections[alias] = connection
        running = inline.Inline(queues)
        try:
            while not stopping.is_set():
                running.run()
                broker.get().wait(queues or inline.known_queues(), 0.02)
        except BaseException as error:  # noqa: BLE001  raised in the test's thread
            errors.append(error)
        finally:
            for connection in connections.all(initialized_only=True):
                if connection.alias not in shared:
                    connection.close()

    thread = threading.Thread(target=work, name="jobs-testing-worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        for connection in shared.values():
            connection.dec_thread_sharing()
    if errors:
        raise errors[0]


class JobsMixin(unittest.TestCase):
    """For ``TestCase``, ``TransactionTestCase`` and ``SimpleTestCase``: an empty broker in memory
    for each test, and assertions about what was sent."""

    #: What the test has sent.
    enqueued: Enqueued

    # Around the whole test, since many a `setUp` doesn't call that of its parents, and such a test
    # would send to the broker of the settings.

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        with in_memory() as self.enqueued:
            return super().run(result)

    def debug(self) -> None:
        with in_memory() as self.enqueued:
            super().debug()

    def run_jobs(self, *queues: str, **options: Any) -> list[AsyncResult[Any]]:
        """As `run_jobs` of this module."""
        return run_jobs(*queues, **options)

    def assertEnqueued(
        self,
        task: Task[..., Any] | str | None = None,
        /,
        *,
        count: int | None = None,
        **wanted: Any,
    ) -> list[Sent]:
        """Fail unless calls like this were sent; with ``count``, exactly so many. Gives them.

        ``wanted``: as for `Enqueued`.
        """
        found = self.enqueued(task, **wanted)
        if len(found) != count if count is not None else not found:
            number = "any" if count is None else count
            raise self.failureException(
                f"Sent: {len(found)}, wanted: {number} of {_described(task, wanted)}. All that was "
                f"sent:\n{_listed(self.enqueued)}"
            )
        return found

    def assertNotEnqueued(self, task: Task[..., Any] | str | None = None, /, **wanted: Any) -> None:
        """Fail if a call like this was sent."""
        self.assertEnqueued(task, count=0, **wanted)


def _described(task: Task[..., Any] | str | None, wanted: Mapping[str, Any]) -> str:
    name = task.name if isinstance(task, Task) else task or "any task"
    return ", ".join([name, *(f"{key}={value!r}" for key, value in wanted.items())])


def _listed(sent: Iterable[Sent]) -> str:
    return (
        "\n".join(f"  {one.task} {one.args} {one.kwargs} on {one.queue}" for one in sent)
        or "  nothing"
    )
