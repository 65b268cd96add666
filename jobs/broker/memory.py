"""The broker's contract in dicts, for test suites: ``JOBS["BROKER_URL"] = "memory://"``.

Threads of one process share it; another process sees nothing of it, and nothing outlives it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from jobs.broker.base import (
    TAKEN_KEPT,
    About,
    Broker,
    Claim,
    Note,
    Outgoing,
    Returned,
    Subscription,
    lists_of,
)
from jobs.broker.base import ended as ended_topic
from jobs.broker.base import progress as progress_topic
from jobs.broker.letters import DeadLetter
from jobs.broker.memory_letters import MemoryLetters
from jobs.broker.memory_limits import MemoryLimits
from jobs.broker.memory_operating import MemoryOperating
from jobs.broker.operating import Pause, Revocation
from jobs.conf import STEPS

#: Bells that ring at most: more waiting consumers than this are never woken at once.
_BELLS = 64


class MemoryBroker(MemoryLetters, MemoryOperating, MemoryLimits, Broker):
    address = "memory://"

    def __init__(
        self, clock: Callable[[], float] = time.time, steps: Sequence[int] = STEPS
    ) -> None:
        """``clock``: Unix seconds, by which leases end and messages fall due. A test that moves it
        forward claims what has fallen due since; `wait` sleeps in real time.
        ``steps``: the priorities at which a queue's lists begin."""
        self._clock = clock
        self._queues: defaultdict[str, _Queue] = defaultdict(lambda: _Queue(steps))
        #: Topic → those who are subscribed to it.
        self._subscriptions: defaultdict[str, list[_Subscription]] = defaultdict(list)
        super().__init__()
        # Guards all of the above; notified when a bell rings.
        self._changed = threading.Condition()

    # ------------------------------------------------------------------ producers

    def push(self, messages: Iterable[Outgoing]) -> None:
        with self._changed:
            for name, raw, priority, due in messages:
                queue = self._queues[name]
                if due is None:
                    queue.of[priority].append(raw)
                else:
                    queue.due[priority, raw] = due
                self._ring(queue, 1)

    # ------------------------------------------------------------------ consumers

    def claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Claim:
        with self._changed:
            q, now = self._queues[queue], self._clock()
            held = q.in_flight.get(consumer, {})
            if first < q.claimed[consumer] and first not in held:
                return Claim([], None, resume=q.claimed[consumer])
            if "" in q.paused and first not in held:
                q.bells = 0
                return Claim([], None)
            next_due = q.promote(now)
            wait_for_due = None if next_due is None else next_due - now
            if first in held:  # claimed by an earlier call of this number
                again = itertools.takewhile(held.__contains__, range(first, first + limit))
                messages = [(number, held[number]) for number in again]
                return q.claim(messages, wait_for_due, now)
            messages = list(enumerate(q.take(limit), first))
            if messages:
                q.leases.setdefault(consumer, now + lease)
                q.in_flight[consumer].update(messages)
                q.claimed[consumer] = first + len(messages)
            if len(messages) < limit:
                q.bells = 0
            return q.claim(messages, wait_for_due, now)

    def wait(self, queues: Sequence[str], timeout: float) -> None:
        def ringing() -> _Queue | None:
            return next((q for q in map(self._queues.__getitem__, queues) if q.bells), None)

        with self._changed:
            queue = self._changed.wait_for(ringing, max(timeout, 0))
            if queue:
                queue.bells -= 1

    def wait_and_claim(
        self, queue: str, consumer: str, first: int, limit: int, lease: float, timeout: float
    ) -> Claim:
        self.wait([queue], timeout)
        return self.claim(queue, consumer, first, limit, lease)

    def ack(
        self, queue: str, consumer: str, numbers: Sequence[int], ended: Sequence[str] = ()
    ) -> int:
        with self._changed:
            held = sum(self._take_back(queue, consumer, number) is not None for number in numbers)
            for task_id in ended:
                self._tell(ended_topic(task_id))
            return held

    def retry(
        self, queue: str, consumer: str, number: int, raw: bytes, priority: int, due: float
    ) -> bool:
        with self._changed:
            if self._take_back(queue, consumer, number) is None:
                return False
            self._queues[queue].due[priority, raw] = due
            self._ring(self._queues[queue], 1)
            return True

    def release(self, queue: str, consumer: str, deliveries: Sequence[Returned]) -> int:
        with self._changed:
            q, held = self._queues[queue], 0
            # The newest first: the oldest ends up where the next claim takes from.
            for number, priority, new in sorted(deliveries, reverse=True, key=lambda d: d.number):
                raw = self._take_back(queue, consumer, number)
                if raw is not None:
                    q.of[priority].appendleft(raw if new is None else new)
                    held += 1
            self._ring(q, held)
            return held

    def held(self, queue: str, consumer: str, numbers: Sequence[int]) -> set[int]:
        with self._changed:
            return set(numbers) & self._queues[queue].in_flight.get(consumer, {}).keys()

    def taken(self, queue: str, consumer: str) -> bool:
        with self._changed:
            return self._queues[queue].taken.get(consumer, 0.0) > self._clock()

    def revoked(self, queue: str, ids: Sequence[str]) -> list[Revocation]:
        with self._changed:
            known, now = self._queues[queue].revoked, self._clock()
            told = [known.get(task_id, (Revocation.NONE, 0.0)) for task_id in ids]
            return [said if ends > now else Revocation.NONE for said, ends in told]

    def note(self, queue: str, notes: Sequence[Note], seconds: float) -> None:
        with self._changed:
            q, now = self._queues[queue], self._clock()
            q.notes = {key: kept for key, kept in q.notes.items() if kept[1] > now}
            for task_id, about, value in notes:
                q.notes[task_id, about] = (value, now + seconds)
                if about is About.PROGRESS:
                    self._tell(progress_topic(task_id))

    def noted(self, queue: str, task_id: str, about: About) -> bytes | None:
        with self._changed:
            value, ends = self._queues[queue].notes.get((task_id, about), (None, 0.0))
            return value if ends > self._clock() else None

    def forget_notes(self, queue: str, task_ids: Sequence[str], about: About) -> None:
        with self._changed:
            for task_id in task_ids:
                self._queues[queue].notes.pop((task_id, about), None)

    def leave(self, queue: str, consumer: str) -> None:
        with self._changed:
            q = self._queues[queue]
            if consumer not in q.in_flight:
                q.leases.pop(consumer, None)

    # ------------------------------------------------------------------ supervisors

    def renew(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        with self._changed:
            leases, ends = self._queues[queue].leases, self._clock() + lease
            leases.update(dict.fromkeys(consumers, ends))

    def expired(self, queue: str) -> list[str]:
        return [consumer.name for consumer in self.consumers(queue) if consumer.lease < 0]

    def reclaim(self, queue: str, consumer: str, edit: Callable[[int, bytes], Returned]) -> int:
        with self._changed:
            q, now = self._queues[queue], self._clock()
            held = list(q.in_flight.get(consumer, {}).items())
            q.taken = {name: ends for name, ends in q.taken.items() if ends > now}
            q.taken[consumer] = now + TAKEN_KEPT
        # Unlocked, since `edit` isn't ours; `release` looks again at what is still held.
        edited = [edit(number, raw) for number, raw in held]
        given_back = self.release(queue, consumer, edited)
        self.leave(queue, consumer)
        return given_back

    # ------------------------------------------------------------------ notifications

    @contextlib.contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        subscription = _Subscription()
        with self._changed:
            for topic in topics:
                self._subscriptions[topic].append(subscription)
        try:
            yield subscription
        finally:
            with self._changed:
                for topic in topics:
                    self._subscriptions[topic].remove(subscription)
                    if not self._subscriptions[topic]:
                        del self._subscriptions[topic]
            subscription.close()

    def notify(self, topic: str) -> None:
        with self._changed:
            self._tell(topic)

    def ping(self) -> None:
        pass

    def close(self) -> None:
        pass

    # ------------------------------------------------------------------ steps, under the lock

    def _wake(self, queue: str, at: float) -> None:
        q, now = self._queues[queue], self._clock()
        for key, due in q.due.items():
            if due == at > now:
                q.due[key] = now
                self._ring(q, 1)

    def _ring(self, queue: _Queue, count: int) -> None:
        queue.bells = min(queue.bells + count, _BELLS)
        self._changed.notify_all()

    def _tell(self, topic: str) -> None:
        for subscription in self._subscriptions.get(topic, ()):
            subscription.tell()

    def _take_back(self, queue: str, consumer: str, number: int) -> bytes | None:
        """Out of flight, or None when the delivery is no longer held."""
        in_flight = self._queues[queue].in_flight
        held = in_flight.get(consumer, {})
        raw = held.pop(number, None)
        if raw is not None and not held:
            del in_flight[consumer]
        return raw


class _Subscription(Subscription):
    """A pipe, so that `select` can wait for it: a byte for each notification."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)

    def __call__(self, timeout: float) -> bool:
        ready = select.select([self._out], [], [], max(timeout, 0))[0]
        return bool(ready and os.read(self._out, 1))

    def fileno(self) -> int:
        return self._out

    def tell(self) -> None:
        with contextlib.suppress(BlockingIOError):  # there is more than enough to be woken by
            os.write(self._in, b".")

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


class _Queue:
    """What one queue holds."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps
        #: A list for each priority step; the oldest message on the left.
        self.lists: tuple[deque[bytes], ...] = tuple(deque() for _ in steps)
        #: Priority → its list.
        self.of = [self.lists[n] for n in lists_of(steps)]
        #: Priority and message → due time.
        self.due: dict[tuple[int, bytes], float] = {}
        #: Consumer → delivery number → message; a consumer that holds nothing has no entry.
        self.in_flight: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        #: Consumer → its next delivery number.
        self.claimed: defaultdict[str, int] = defaultdict(int)
        #: Consumer whose messages were taken away → until when that is known.
        self.taken: dict[str, float] = {}
        #: Consumer → end of its lease.
        self.leases: dict[str, float] = {}
        #: The newest last.
        self.dead: dict[str, DeadLetter] = {}
        #: Task id → what is said of it, and until when that is remembered.
        self.revoked: dict[str, tuple[Revocation, float]] = {}
        #: Task, or "" for the whole queue → why it is paused.
        self.paused: dict[str, Pause] = {}
        #: Worker → what it said last.
        self.reports: dict[str, bytes] = {}
        #: Task id and what it is about → the note, and until when it is kept.
        self.notes: dict[tuple[str, About], tuple[bytes, float]] = {}
        #: How many waiting consumers are to wake.
        self.bells = 0

    def promote(self, now: float) -> float | None:
        """Move what is due to the lists; when the next of the others is due."""
        ready = sorted((due, key) for key, due in self.due.items() if due <= now)
        for _, (priority, raw) in ready:
            self.of[priority].append(raw)
            del self.due[priority, raw]
        return min(self.due.values(), default=None)

    def claim(self, messages: list[tuple[int, bytes]], next_due: float | None, now: float) -> Claim:
        """These messages, with what is said of the queue."""
        revocations = any(ends > now for _, ends in self.revoked.values())
        return Claim(messages, next_due, revocations, paused_tasks=any(self.paused))

    def take(self, limit: int) -> Iterator[bytes]:
        """Up to ``limit`` messages, the most urgent first and the oldest first within."""
        for messages in self.lists:
            while messages and limit > 0:
                limit -= 1
                yield messages.popleft()
