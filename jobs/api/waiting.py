"""Waiting for the ends of calls on an event loop: for many at once, with one subscription and one
thread for all of them.

A notification only wakes; what counts is the ledger. So the ledger is asked about a call when the
subscription to its end begins, after each notification of it, and about all calls now and then,
although nothing was heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
import weakref
from collections.abc import AsyncGenerator, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from django.db import Error as DatabaseError
from django.db import close_old_connections, connections

from jobs import broker, ledger, message
from jobs.broker.base import Subscription, ended
from jobs.exceptions import BrokerUnavailable, shown
from jobs.models import TaskResult

#: Seconds after which the ledger is read although nothing was heard: the connection may be dead.
DEAF = 30.0
#: Seconds between two reads of the ledger while the broker can't tell that a task has ended.
WITHOUT_BROKER = 1.0

#: Seconds for which subscription and thread are kept when nobody waits any more.
_KEPT = 5.0
#: Seconds between two looks at the thread's connections to the database.
_CARE = 1.0
#: Most calls in one query.
_BATCH = 500

#: How many characters the topic of an end has before the id.
_BEFORE_ID = len(ended(""))

_Future = asyncio.Future[TaskResult]


async def ends(ids: Collection[str], timeout: float | None) -> AsyncGenerator[TaskResult]:
    """The rows of these calls, each as soon as it has ended; of those alone that end within
    ``timeout`` seconds (None: of all). Raises `ValueError` for an id that no call can have."""
    # Broker or database would refuse it, and with it what the others ask in the same breath.
    if wrong := [task_id for task_id in ids if not message.is_name(task_id)]:
        raise ValueError(f"The id of a call is text that can be stored, not {shown(wrong[0])}.")
    loop = asyncio.get_running_loop()
    until = None if timeout is None else loop.time() + timeout
    waiters = _of_loops.get(loop) or Waiters(loop)
    futures = waiters.expect(ids)
    done: asyncio.Queue[_Future] = asyncio.Queue()
    for future in futures.values():
        future.add_done_callback(done.put_nowait)
    left = dict.fromkeys(futures)
    try:
        while left:
            async with asyncio.timeout_at(until):
                row = (await done.get()).result()
            left.pop(row.id, None)
            yield row
    except TimeoutError:
        # Notifications may be lost: as always, the ledger has the last word.
        for row in await waiters.look([*left]):
            yield row
    finally:
        waiters.forget(futures)


async def leave() -> None:
    """Stop the thread and the subscription that serve this loop. For code that closes a loop
    without cancelling its tasks first, as `asyncio.run` does."""
    if waiters := _of_loops.get(asyncio.get_running_loop()):
        waiters.task.cancel()
        await asyncio.wait([waiters.task])


class Waiters:
    """Those who wait on one event loop. Its methods run there, but for `_open` and `_read`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: Id → the futures of its end.
        self._futures: dict[str, set[_Future]] = {}
        #: Calls to subscribe to, to unsubscribe from, and to look up in the ledger.
        self._new: set[str] = set()
        self._left: set[str] = set()
        self._due: set[str] = set()
        #: Set when there is something to do.
        self._stirred = asyncio.Event()
        self._heard: Subscription | None = None
        self._entered = contextlib.ExitStack()
        #: When to subscribe anew to everything (the loop's time).
        self._renew_at = 0.0
        self._thread = ThreadPoolExecutor(1, "jobs-results")
        self._care_at = 0.0
        _of_loops[loop] = self
        # Not in the context of the first who waits, which may be a request or a running task.
        self.task = loop.create_task(self._run(), context=contextvars.Context())

    def expect(self, ids: Collection[str]) -> dict[str, _Future]:
        """A future for the end of each of these calls, to be handed to `forget` afterwards."""
        futures = {task_id: self._loop.create_future() for task_id in ids}
        for task_id, future in futures.items():
            self._futures.setdefault(task_id, set()).add(future)
        self._new.update(futures)
        self._stirred.set()
        return futures

    def forget(self, futures: dict[str, _Future]) -> None:
        for task_id, future in futures.items():
            future.cancel()  # if it isn't done
            if others := self._futures.get(task_id):
                others.discard(future)
                if not others:
                    del self._futures[task_id]
                    self._left.add(task_id)
        self._stirred.set()

    async def look(self, ids: Sequence[str]) -> list[TaskResult]:
        """The rows of those of these calls that have ended."""
        rows: list[TaskResult] = []
        for part in ledger.chunks(ids, _BATCH):
            rows += await self._loop.run_in_executor(self._thread, self._read, part)
        return rows

    # ------------------------------------------------------------------ the loop

    async def _run(self) -> None:
        try:
            while await self._stir():
                if self._futures and self._loop.time() >= self._renew_at:
                    await self._subscribe_anew()
                self._subscribe()
                while self._due:
                    await self._tell()
        except Exception as error:
            self._fail([*self._futures], error)
            raise
        finally:
            for future in [one for some in self._futures.values() for one in some]:
                future.cancel()  # whoever has cancelled this task: nobody would wake them any more
            if _of_loops.get(self._loop) is self:
                del _of_loops[self._loop]
            self._unsubscribe()
            self._thread.submit(connections.close_all)
            self._thread.shutdown()

    async def _stir(self) -> bool:
        """Wait until there is something to do. False: nobody has waited for `_KEPT` seconds."""
        waited = bool(self._futures)
        seconds = max(0.0, self._renew_at - self._loop.time()) if waited else _KEPT
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()  # set by expect(), forget() and _hear()
        found = waited or self._stirred.is_set()
        self._stirred.clear()
        return found

    async def _subscribe_anew(self) -> None:
        """Subscribe to all ends on a new connection: the old one may be dead, and nobody told."""
        self._unsubscribe()
        now = self._loop.time()
        try:
            self._heard = await self._loop.run_in_executor(self._thread, self._open)
        except BrokerUnavailable:
            self._due.update(self._futures)
            self._renew_at = now + WITHOUT_BROKER
        else:
            self._loop.add_reader(self._heard.fileno(), self._hear)
            self._new.update(self._futures)
            self._renew_at = now + DEAF

    def _subscribe(self) -> None:
        """Tell the broker what has changed."""
        new, left = self._new & self._futures.keys(), self._left - self._futures.keys()
        self._new, self._left = set(), set()
        if self._heard is None:
            self._due |= new
            return
        try:
            if left:
                self._heard.leave([ended(task_id) for task_id in left])
            if new:
                self._heard.ask([ended(task_id) for task_id in new])
        except BrokerUnavailable:
            self._renew()

    def _hear(self) -> None:
        """Something has come on the subscription."""
        assert self._heard is not None
        try:
            self._due.update(topic[_BEFORE_ID:] for topic in self._heard.take())
        except BrokerUnavailable:
            self._renew()
        self._stirred.set()

    def _renew(self) -> None:
        self._unsubscribe()
        self._renew_at = 0.0
        self._stirred.set()

    def _unsubscribe(self) -> None:
        if self._heard is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._heard.fileno())
            self._heard = None
            self._entered.close()

    async def _tell(self) -> None:
        """Look up some of what may have ended, and hand the rows to those who wait for them."""
        ids = [task_id for task_id in self._due if task_id in self._futures][:_BATCH]
        self._due = self._due.difference(ids) if len(ids) == _BATCH else set()
        try:
            rows = await self.look(ids)
        except DatabaseError as error:
            self._fail(ids, error)
            return
        for row in rows:
            for future in self._futures.get(row.id, ()):
                if not future.done():
                    future.set_result(row)

    def _fail(self, ids: Sequence[str], error: Exception) -> None:
        for future in [one for task_id in ids for one in self._futures.get(task_id, ())]:
            if not future.done():
                future.set_exception(error)

    # ------------------------------------------------------------------ in the thread

    def _open(self) -> Subscription:
        return self._entered.enter_context(broker.get().subscribe())

    def _read(self, ids: Sequence[str]) -> list[TaskResult]:
        if time.monotonic() >= self._care_at:
            close_old_connections()
            self._care_at = time.monotonic() + _CARE
        try:
            return ledger.ends(ids)
        except DatabaseError:
            close_old_connections()
            raise


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Waiters] = (
    weakref.WeakKeyDictionary()
)
