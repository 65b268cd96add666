"""The broker in dicts, for test suites: ``JOBS["BROKER_URL"] = "memory://"``.

The threads of one process share it. Other processes don't see it, and nothing outlives the process.
The verbs come in the order of `jobs.broker.base`, as in `jobs.broker.redis`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import select
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from jobs.broker import limiting
from jobs.broker.base import (
    COMMANDS_MOST,
    COMPARED,
    COMPARING,
    GONE_KEPT,
    GONE_MOST,
    PARKED,
    QUEUES_KNOWN,
    READABLE,
    TAKEN_KEPT,
    About,
    Broker,
    CeleryResult,
    Claim,
    Compare,
    Consumer,
    DeadLetter,
    Found,
    InFlight,
    Note,
    Outgoing,
    Parking,
    Pause,
    Returned,
    Revocation,
    Revoked,
    Stats,
    Subscription,
    Survey,
    Waiting,
    lists_of,
)
from jobs.broker.base import ended as ended_topic
from jobs.broker.base import progress as progress_topic
from jobs.broker.counting import KEPT, OTHER, SENT, TASKS, Counts, Resolution, Span, span_at
from jobs.broker.limiting import (
    ASK_AGAIN,
    ASK_AGAIN_EACH,
    ASK_AGAIN_MOST,
    HANDED,
    SLOT,
    Bucket,
    Lock,
    Permit,
    Slot,
    Take,
    Wish,
)
from jobs.broker.tenants import Waits
from jobs.conf import STEPS

#: Most bells that ring at once: each wakes one waiting consumer.
_BELLS = 64


class MemoryBroker(Broker):
    address = "memory://"

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        steps: Sequence[int] = STEPS,
        *,
        metrics: bool = False,
    ) -> None:
        """``clock``: Unix seconds. Leases end and messages fall due by it, so a test may move it
        forward; `wait` sleeps in real time.
        ``steps``: the priorities at which a queue's lists begin.
        ``metrics``: whether what is pushed is counted."""
        self._clock = clock
        #: Seconds by which `move_clock` has moved it.
        self._ahead = 0.0
        self._metrics = metrics
        self._queues: defaultdict[str, _Queue] = defaultdict(lambda: _Queue(steps))
        #: Topic → its subscriptions.
        self._subscriptions: defaultdict[str, list[_Subscription]] = defaultdict(list)
        self._dead_numbers = itertools.count(1)
        self._buckets: defaultdict[str, Bucket] = defaultdict(Bucket)
        #: Task → the rate that an operator has set.
        self._overrides: dict[str, bytes] = {}
        self._slots: defaultdict[str, _Slots] = defaultdict(_Slots)
        #: Name → the call, whether it has released the lock, and until when this is kept.
        self._locks: dict[str, tuple[str, bool, float]] = {}
        #: Undeclared queues, the latest last.
        self._remembered: dict[str, None] = {}
        #: Queue and number of shards → when that was said last.
        self._shards: dict[tuple[str, int], float] = {}
        #: Span → its numbers, and those of its tasks.
        self._counts: dict[Span, Counter[str]] = {}
        self._task_counts: dict[Span, dict[str, Counter[str]]] = {}
        # Guards all of the above; notified when a bell rings.
        self._changed = threading.Condition()

    def now(self) -> float:
        """Unix seconds by this broker's clock."""
        return self._clock() + self._ahead

    def move_clock(self, to: float | None) -> None:
        """Let the clock go on from ``to`` (Unix seconds), or with None from the present time."""
        self._ahead = 0.0 if to is None else to - self._clock()

    # ------------------------------------------------------------------ producers

    def push(self, messages: Iterable[Outgoing], replicas: int = 0) -> None:
        with self._changed:
            for name, raw, priority, due, _fair, once in messages:
                queue = self._queues[name]
                if once:
                    if once in queue.handed:
                        continue
                    queue.handed.add(once)
                if once or due is None:
                    queue.of[priority].append(raw)
                else:
                    queue.due[priority, raw] = due
                self._ring(queue, 1)
                if self._metrics:
                    self._add(name, {SENT: 1}, {})

    def check_queues(self, queues: Collection[str]) -> None:
        pass  # no queue is refused here

    # ------------------------------------------------------------------ consumers

    def claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Claim:
        with self._changed:
            q, now = self._queues[queue], self.now()
            held = q.in_flight.get(consumer, {})
            if first < q.claimed[consumer] and first not in held:
                return Claim([], None, resume=q.claimed[consumer])
            if "" in q.paused and first not in held:
                q.bells = 0
                return Claim([], None, paused=True)
            next_due = q.promote(now)
            if first in held:  # an earlier call has claimed it, and its answer was lost
                again = itertools.takewhile(held.__contains__, range(first, first + limit))
                messages = [(number, held[number]) for number in again]
            else:
                messages = list(enumerate(q.take(limit), first))
                if messages:
                    q.leases.setdefault(consumer, now + lease)
                    q.in_flight[consumer].update(messages)
                    q.claimed[consumer] = first + len(messages)
                if len(messages) < limit:
                    q.bells = 0
            return Claim(
                messages,
                next_due=None if next_due is None else next_due - now,
                revocations=any(ends > now for _, ends in q.revoked.values()),
                paused_tasks=any(q.paused),
            )

    def wait(self, queues: Sequence[str], timeout: float) -> str | None:
        def ringing() -> str | None:
            return next((queue for queue in queues if self._queues[queue].bells), None)

        with self._changed:
            queue = self._changed.wait_for(ringing, max(timeout, 0))
            if queue is not None:
                self._queues[queue].bells -= 1
            return queue

    def stirring(self, queues: Sequence[str], due: Collection[str] = ()) -> list[str]:
        with self._changed:
            found = [(queue, self._queues[queue]) for queue in queues]
            return [
                queue for queue, q in found if q.bells or any(q.lists) or (queue in due and q.due)
            ]

    def wait_and_claim(
        self, queue: str, consumer: str, first: int, limit: int, lease: float, timeout: float
    ) -> Claim:
        self.wait([queue], timeout)
        return self.claim(queue, consumer, first, limit, lease)

    def ring_for_foreign(self, queue: str, timeout: float) -> int:
        with self._changed:
            q = self._queues[queue]
            self._changed.wait_for(lambda: q.lists[0], max(timeout, 0))
            waiting = sum(len(messages) for messages in q.lists)
            if "" not in q.paused:
                self._ring(q, max(0, waiting - q.bells))
            return waiting

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
            # The newest first, so that the oldest ends up where the next claim takes from.
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

    def numbers_held(self, queues: Sequence[str], consumer: str) -> dict[str, set[int]]:
        with self._changed:
            return {name: set(self._queues[name].in_flight.get(consumer, {})) for name in queues}

    def taken(self, queue: str, consumer: str) -> bool:
        with self._changed:
            return self._queues[queue].taken.get(consumer, 0.0) > self.now()

    def hold_again(
        self,
        queue: str,
        consumer: str,
        deliveries: Mapping[int, bytes],
        following: int,
        lease: float,
    ) -> int:
        with self._changed:
            q, now = self._queues[queue], self._clock()
            if q.taken.get(consumer, 0.0) > now:
                return 0
            lost = deliveries.keys() - q.in_flight.get(consumer, {}).keys()
            if lost:
                q.in_flight[consumer].update({number: deliveries[number] for number in lost})
                q.leases.setdefault(consumer, now + lease)
            q.claimed[consumer] = max(q.claimed[consumer], following)
            return len(lost)

    def revoked(self, queue: str, ids: Sequence[str]) -> list[Revocation]:
        with self._changed:
            known, now = self._queues[queue].revoked, self.now()
            found = [known.get(task_id, (Revocation.NONE, 0.0)) for task_id in ids]
            return [kind if ends > now else Revocation.NONE for kind, ends in found]

    def note(self, queue: str, notes: Sequence[Note], seconds: float) -> None:
        with self._changed:
            q, now = self._queues[queue], self.now()
            q.notes = {key: kept for key, kept in q.notes.items() if kept[1] > now}
            for task_id, about, value in notes:
                q.notes[task_id, about] = (value, now + seconds)
                if about is About.PROGRESS:
                    self._tell(progress_topic(task_id))

    def noted(self, queue: str, task_id: str, about: About) -> bytes | None:
        with self._changed:
            value, ends = self._queues[queue].notes.get((task_id, about), (None, 0.0))
            return value if ends > self.now() else None

    def noted_of(self, queue: str, task_ids: Sequence[str], about: About) -> list[bytes | None]:
        return [self.noted(queue, task_id, about) for task_id in task_ids]

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
            leases, ends = self._queues[queue].leases, self.now() + lease
            leases.update(dict.fromkeys(consumers, ends))

    def retain(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        with self._changed:
            holding = [name for name in consumers if self._queues[queue].in_flight.get(name)]
            self.renew(queue, holding, lease)
            for name in set(consumers).difference(holding):
                self.leave(queue, name)

    def attended(self, queues: Sequence[str]) -> list[str]:
        with self._changed:
            found = [(queue, self._queues[queue]) for queue in queues]
            return [queue for queue, q in found if q.leases or q.reports]

    def expired(self, queue: str) -> list[str]:
        return [consumer.name for consumer in self.consumers(queue) if consumer.lease < 0]

    def reclaim(self, queue: str, consumer: str, edit: Callable[[int, bytes], Returned]) -> int:
        with self._changed:
            q, now = self._queues[queue], self.now()
            held = list(q.in_flight.get(consumer, {}).items())
            q.taken = {name: ends for name, ends in q.taken.items() if ends > now}
            q.taken[consumer] = now + TAKEN_KEPT
        # Without the lock, since `edit` isn't ours; `release` skips what is no longer held.
        edited = [edit(number, raw) for number, raw in held]
        given_back = self.release(queue, consumer, edited)
        self.leave(queue, consumer)
        return given_back

    def doubtful(self, queues: Sequence[str]) -> list[str]:
        with self._changed:
            now = self._clock()
            found = [(queue, self._queues[queue].compared) for queue in queues]
            return [queue for queue, (who, until) in found if who or until <= now]

    def compare(self, queue: str, who: str, step: Compare) -> bool:
        with self._changed:
            q, now = self._queues[queue], self._clock()
            comparing, until = q.compared
            if step is Compare.BEGIN:
                if until > now and comparing != who:
                    return False
            elif until <= now or comparing != who:
                return False
            over = step is Compare.END
            q.compared = ("", now + COMPARED) if over else (who, now + COMPARING)
            return True

    # ------------------------------------------------------------------ notifications

    @contextlib.contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        subscription = _Subscription(self._changed, self._subscriptions)
        with self._changed:
            for topic in topics:
                self._subscriptions[topic].append(subscription)
        try:
            yield subscription
        finally:
            subscription.close()

    def notify(self, topic: str) -> None:
        with self._changed:
            self._tell(topic)

    def store_celery_results(self, results: Sequence[CeleryResult], seconds: float | None) -> None:
        pass

    def store_celery_parts(
        self, group_id: str, parts: Sequence[tuple[int, str]], seconds: float | None
    ) -> None:
        pass

    def ping(self) -> None:
        pass

    def close(self) -> None:
        pass

    # ------------------------------------------------------------------ dead letters

    def dead_letter(self, queue: str, consumer: str, number: int, reason: str, worker: str) -> bool:
        with self._changed:
            raw = self._take_back(queue, consumer, number)
            if raw is None:
                return False
            self.bury(queue, raw, reason, worker)
            return True

    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        with self._changed:
            now = dt.datetime.fromtimestamp(self.now(), dt.UTC)
            key = str(next(self._dead_numbers))
            self._queues[queue].dead[key] = DeadLetter(key, raw, reason, now, worker)

    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        with self._changed:
            newest_first: Iterable[DeadLetter] = reversed(self._queues[queue].dead.values())
            older = [d for d in newest_first if before is None or int(d.key) < int(before)]
            return older[:count]

    def dead_letters_of(
        self, before: Mapping[str, str | None], count: int
    ) -> dict[str, list[DeadLetter]]:
        return {queue: self.dead_letters(queue, count, key) for queue, key in before.items()}

    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        with self._changed:
            found: DeadLetter | None = self._queues[queue].dead.get(key)
            return found

    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        with self._changed:
            q = self._queues[queue]
            letter = q.dead.pop(key, None)
            if letter is None:
                return False
            q.of[priority].append(raw or letter.raw)
            self._ring(q, 1)
            return True

    def discard(self, queue: str, key: str) -> bool:
        with self._changed:
            return self._queues[queue].dead.pop(key, None) is not None

    # ------------------------------------------------------------------ operators

    def pause(self, queue: str, pause: Pause) -> None:
        with self._changed:
            self._queues[queue].paused[pause.task] = pause

    def resume(self, queue: str, task: str = "") -> bool:
        with self._changed:
            q = self._queues[queue]
            was = q.paused.pop(task, None) is not None
            for key, due in q.due.items():
                if task and due >= PARKED:
                    q.due[key] = min(due - PARKED, self.now())
            self._ring(q, len(q.due) + sum(map(len, q.lists)))
            return was

    def paused_of(self, queues: Sequence[str]) -> list[list[Pause]]:
        return [self.paused(queue) for queue in queues]

    def paused(self, queue: str) -> list[Pause]:
        with self._changed:
            return sorted(self._queues[queue].paused.values())

    def park(self, queue: str, consumer: str, deliveries: Sequence[Parking]) -> set[int]:
        parked = set()
        with self._changed:
            q = self._queues[queue]
            for number, priority, task in deliveries:
                if task not in q.paused:
                    continue
                raw = self._take_back(queue, consumer, number)
                if raw is not None:
                    q.due[priority, raw] = PARKED + self.now()
                    parked.add(number)
        return parked

    def revoke(self, queue: str, task_id: str, seconds: float, *, terminate: bool) -> None:
        with self._changed:
            q, now = self._queues[queue], self.now()
            q.revoked = {known: told for known, told in q.revoked.items() if told[1] > now}
            before = q.revoked.get(task_id, (Revocation.REVOKED, 0.0))[0]
            said = Revocation.TERMINATE if terminate else before
            q.revoked[task_id] = (said, now + seconds)

    def unrevoke(self, queue: str, task_id: str) -> None:
        with self._changed:
            self._queues[queue].revoked.pop(task_id, None)

    def hasten(self, queue: str, raw: bytes, priority: int) -> bool:
        with self._changed:
            q = self._queues[queue]
            due = q.due.get((priority, raw))
            if due is None:
                return False
            q.due[priority, raw] = min(due, self.now())
            self._ring(q, 1)
            return True

    def take(
        self, queue: str, consumer: str, first: int, limit: int, lease: float
    ) -> list[Waiting]:
        with self._changed:
            taken = list(itertools.islice(self.browse(queue, due=False), limit))
            for number, message in enumerate(taken, first):
                self.pick(queue, consumer, number, lease, message)
            return taken

    def pick(self, queue: str, consumer: str, number: int, lease: float, message: Waiting) -> bool:
        with self._changed:
            q = self._queues[queue]
            waits = q.of[message.priority]
            if message.raw not in waits:
                return False
            waits.remove(message.raw)
            q.in_flight[consumer][number] = message.raw
            q.leases[consumer] = self.now() + lease
            return True

    def withdraw(self, queue: str, messages: Sequence[Waiting]) -> int:
        with self._changed:
            due = self._queues[queue].due
            return sum(due.pop((m.priority, m.raw), None) is not None for m in messages)

    def stats(self, queue: str) -> Stats:
        with self._changed:
            q, consumers = self._queues[queue], self.consumers(queue)
            return Stats(
                waiting=sum(map(len, q.lists)),
                in_flight=sum(consumer.in_flight for consumer in consumers),
                due=len(q.due),
                dead=len(q.dead),
                consumers=sum(consumer.lease > 0 for consumer in consumers),
            )

    def consumers(self, queue: str) -> list[Consumer]:
        with self._changed:
            q, now = self._queues[queue], self.now()
            by_end = sorted((ends, name) for name, ends in q.leases.items())
            return [
                Consumer(name, ends - now, len(q.in_flight.get(name, ()))) for ends, name in by_end
            ]

    def scan(self, queue: str) -> Iterator[bytes]:
        with self._changed:
            q = self._queues[queue]
            held = [raw for messages in q.in_flight.values() for raw in messages.values()]
            waiting = itertools.chain(*q.lists)
            dead = (letter.raw for letter in q.dead.values())
            return iter([*(raw for _, raw in q.due), *waiting, *held, *dead])

    def browse(self, queue: str, *, due: bool) -> Iterator[Waiting]:
        with self._changed:
            q = self._queues[queue]
            if due:
                by_time = sorted((at, key) for key, at in q.due.items())
                return iter([Waiting(raw, priority, at) for at, (priority, raw) in by_time])
            lists = zip(q.steps, q.lists, strict=True)
            return iter([Waiting(raw, priority) for priority, waits in lists for raw in waits])

    def peek(self, queue: str, start: int, count: int) -> list[Waiting]:
        return list(itertools.islice(self.browse(queue, due=False), start, start + count))

    def peek_due(self, queue: str, count: int, since: float = 0.0, skip: int = 0) -> list[Waiting]:
        later = (m for m in self.browse(queue, due=True) if m.due is not None and m.due >= since)
        return list(itertools.islice(later, skip, skip + count))

    def peek_in_flight(self, queue: str, start: int, count: int) -> list[InFlight]:
        with self._changed:
            by_consumer = sorted(self._queues[queue].in_flight.items())
            held = [
                InFlight(n, k, raw) for n, held in by_consumer for k, raw in sorted(held.items())
            ]
            return held[start : start + count]

    def revocations(self, queue: str, count: int) -> list[Revoked]:
        with self._changed:
            known, now = self._queues[queue].revoked, self.now()
            found = [Revoked(i, said > 1, ends) for i, (said, ends) in known.items() if ends > now]
            return sorted(found, key=lambda revoked: -revoked.until)[:count]

    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        with self._changed:
            reports = self._queues[queue].reports
            if text is None:
                reports.pop(worker, None)
            else:
                reports[worker] = (text, self.now())

    def reports(self, queue: str) -> Mapping[str, bytes]:
        with self._changed:
            return {name: text for name, (text, _at) in self._queues[queue].reports.items()}

    def report_ages(self, queue: str, most: int = 0) -> Mapping[str, float]:
        with self._changed:
            now, reports = self.now(), self._queues[queue].reports
            oldest = sorted((at, name) for name, (_text, at) in reports.items())
            return {name: max(0.0, now - at) for at, name in oldest[: most or None]}

    def report_ages_of(self, queues: Sequence[str]) -> list[Mapping[str, float]]:
        return [self.report_ages(queue) for queue in queues]

    def note_gone(self, queue: str, text: bytes, worker: str = "") -> bool:
        with self._changed:
            q = self._queues[queue]
            if worker and q.reports.pop(worker, None) is None:
                return False
            q.gone.appendleft((text, self.now() + GONE_KEPT))
            return True

    def gone_of(self, queues: Sequence[str]) -> list[list[bytes]]:
        with self._changed:
            now = self.now()
            return [
                [text for text, ends in self._queues[queue].gone if ends > now] for queue in queues
            ]

    def command(self, queue: str, worker: str, text: bytes, seconds: float) -> None:
        with self._changed:
            waiting = self._queues[queue].commands[worker]
            waiting.append((text, self.now() + seconds))

    def take_commands(self, queue: str, worker: str) -> list[bytes]:
        with self._changed:
            found = self._queues[queue].commands.pop(worker, ())
            return [text for text, ends in found if ends > self.now()]

    def answer(self, queue: str, command_id: str, text: bytes, seconds: float) -> None:
        with self._changed:
            q, now = self._queues[queue], self.now()
            q.answers = {key: kept for key, kept in q.answers.items() if kept[1] > now}
            q.answers[command_id] = (text, now + seconds)

    def answered(self, queue: str, command_id: str) -> bytes | None:
        with self._changed:
            text, ends = self._queues[queue].answers.get(command_id, (None, 0.0))
            return text if ends > self.now() else None

    def reports_of(self, queues: Sequence[str]) -> list[Mapping[str, bytes]]:
        return [self.reports(queue) for queue in queues]

    def survey(self, queues: Sequence[str]) -> list[Survey]:
        with self._changed:
            return [
                Survey(
                    self.stats(queue),
                    self.consumers(queue),
                    self.paused(queue),
                    self.reports(queue),
                    [
                        waits
                        for waiting in self._queues[queue].lists
                        for waits in itertools.islice(waiting, 1)
                        if len(waits) <= READABLE
                    ],
                )
                for queue in queues
            ]

    def held_by(self, deliveries: Sequence[tuple[str, str, Sequence[int]]]) -> list[bytes | None]:
        with self._changed:
            return [
                self._queues[queue].in_flight.get(consumer, {}).get(number)
                for queue, consumer, numbers in deliveries
                for number in numbers
            ]

    def remember_queues(self, queues: Collection[str]) -> None:
        with self._changed:
            for queue in queues:
                self._remembered.pop(queue, None)
                self._remembered[queue] = None
            for oldest in list(self._remembered)[:-QUEUES_KNOWN]:
                del self._remembered[oldest]

    def remembered_queues(self, count: int) -> list[str]:
        with self._changed:
            return list(self._remembered)[::-1][:count]

    def remember_shards(self, counts: Mapping[str, int]) -> None:
        with self._changed:
            self._shards |= dict.fromkeys(counts.items(), self._clock())

    def remembered_shards(self) -> Mapping[str, int]:
        with self._changed:
            return {queue: count for queue, count in sorted(self._shards) if count > 1}

    def forget_shards(self, queue: str, above: int, seconds: float) -> bool:
        with self._changed:
            said = [one for one in self._shards if one[0] == queue and one[1] > above]
            since = self._clock() - seconds
            old = [one for one in said if self._shards[one] <= since]
            for one in old:
                del self._shards[one]
            return bool(old) and len(old) == len(said)

    def listeners(self, topic: str) -> int | None:
        with self._changed:
            return len(self._subscriptions.get(topic, ()))

    # ------------------------------------------------------------------ limits

    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        answers = []
        with self._changed:
            now = self.now()
            for limit, rate, before, within, unused in wishes:
                bucket = limiting.at_rate(self._buckets[limit], rate, now)
                bucket = limiting.return_permits(bucket, rate, unused)
                given = []
                for time_kept in before:
                    bucket, permit = limiting.ask(bucket, rate, time_kept, now, within)
                    given.append(permit)
                self._buckets[limit] = bucket
                answers.append(given)
        return answers

    def set_override(self, name: str, text: bytes | None) -> bool:
        with self._changed:
            was = self._overrides.pop(name, None)
            if text is not None:
                self._overrides[name] = text
            return was is not None

    def overrides(self) -> Mapping[str, bytes]:
        with self._changed:
            return dict(self._overrides)

    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        with self._changed:
            return [self._slots[slot.limit].take(slot, self.now()) for slot in slots]

    def keep_slots(self, slots: Sequence[Slot]) -> None:
        with self._changed:
            for slot in slots:
                held = self._slots[slot.limit].held
                if slot.holder in held:
                    held[slot.holder] = self.now() + SLOT

    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        with self._changed:
            for slot in slots:
                self._slots[slot.limit].waiting[slot.queue, slot.holder] = slot.due
                self._hand_over(slot)

    def free_slots(self, slots: Sequence[Slot]) -> None:
        with self._changed:
            for slot in slots:
                self._slots[slot.limit].held.pop(slot.holder, None)
                self._hand_over(slot)

    def slots_in_use(self, limits: Sequence[str]) -> list[int]:
        with self._changed:
            now = self.now()
            return [sum(ends > now for ends in self._slots[name].held.values()) for name in limits]

    def lock(self, locks: Sequence[Lock]) -> list[str]:
        answers = []
        with self._changed:
            for name, task_id, seconds, take in locks:
                holder, released = self._holder(name)
                free = released or not holder
                if holder == task_id and not released:
                    answer = ""
                elif take is Take.KEEP:
                    answer = "-" if free else holder
                else:
                    answer = "" if free or take is Take.REPLACE else holder
                if not answer:
                    self._locks[name] = (task_id, False, self.now() + seconds)
                answers.append(answer)
        return answers

    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        answers = []
        with self._changed:
            for name, task_id, _seconds, take in locks:
                holder, released = self._holder(name)
                if holder == task_id and not released:
                    _, _, ends = self._locks.pop(name)
                    if take is Take.REPLACE:
                        self._locks[name] = (holder, True, ends)
                answers.append("" if holder == task_id else holder)
        return answers

    def locked(self, names: Sequence[str]) -> list[str]:
        with self._changed:
            found = map(self._holder, names)
            return ["" if released else holder for holder, released in found]

    # ------------------------------------------------------------------ numbers

    def count(self, queue: str, counts: Counts, tasks: Mapping[str, Counts]) -> None:
        with self._changed:
            self._add(queue, counts, tasks)

    def counts(self, spans: Sequence[Span]) -> list[Found]:
        with self._changed:
            return [Found(dict(self._counts.get(span, {}))) for span in spans]

    def task_counts(
        self, spans: Sequence[Span], fields: Sequence[str] = ()
    ) -> list[Mapping[str, Counts]]:
        found: list[Mapping[str, Counts]] = []
        with self._changed:
            for span in spans:
                tasks = {task: dict(of) for task, of in self._task_counts.get(span, {}).items()}
                if fields:
                    tasks = {
                        task: {field: counts[field] for field in fields if field in counts}
                        for task, counts in tasks.items()
                        if not counts.keys().isdisjoint(fields)
                    }
                found.append(tasks)
        return found

    # ------------------------------------------------------------------ steps, under the lock

    def _add(self, queue: str, counts: Counts, tasks: Mapping[str, Counts]) -> None:
        now = self.now()
        for resolution in Resolution:
            span = span_at(queue, resolution, now)
            if span not in self._counts:
                self._forget_spans(now)
                self._counts[span] = Counter()
            self._counts[span].update(counts)
            known = self._task_counts.setdefault(span, {})
            for task, fields in tasks.items():
                named = sum(name != OTHER for name in known)
                name = task if task in known or named < TASKS else OTHER
                known.setdefault(name, Counter()).update(fields)

    def _forget_spans(self, now: float) -> None:
        """Drop the spans that have been kept long enough."""
        for span in list(self._counts):
            ends = (span.number + 1) * span.resolution.seconds
            kept, tasks_kept = KEPT[span.resolution]
            if ends + tasks_kept < now:
                self._task_counts.pop(span, None)
            if ends + kept < now:
                del self._counts[span]

    def _ring(self, queue: _Queue, count: int) -> None:
        queue.bells = min(queue.bells + count, _BELLS)
        self._changed.notify_all()

    def _tell(self, topic: str) -> None:
        for subscription in self._subscriptions.get(topic, ()):
            subscription.tell(topic)

    def _take_back(self, queue: str, consumer: str, number: int) -> bytes | None:
        """Take a message out of flight; None when the delivery is no longer held."""
        in_flight = self._queues[queue].in_flight
        held = in_flight.get(consumer, {})
        raw = held.pop(number, None)
        if raw is not None and not held:
            del in_flight[consumer]
        return raw

    def _hand_over(self, slot: Slot) -> None:
        """Reserve the free slots of this limit, and make the messages due that wait for them."""
        now = self.now()
        for queue, at in self._slots[slot.limit].hand_over(slot.most, now):
            q = self._queues[queue]
            for key, due in q.due.items():
                if due == at > now:
                    q.due[key] = now
                    self._ring(q, 1)

    def _holder(self, name: str) -> tuple[str, bool]:
        """The call that has this lock or had it last, and whether it has released it."""
        holder, released, ends = self._locks.get(name, ("", False, 0.0))
        return (holder, released) if ends > self.now() else ("", False)


class _Subscription(Subscription):
    """A pipe with a byte for each notification, so that `select` can wait for it."""

    def __init__(
        self, changed: threading.Condition, subscriptions: defaultdict[str, list[_Subscription]]
    ) -> None:
        """Both as the broker has them."""
        self._changed = changed
        self._subscriptions = subscriptions
        self._topics: deque[str] = deque()
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def __call__(self, timeout: float) -> bool:
        if not self._topics:
            select.select([self._out], [], [], max(timeout, 0))
        with self._changed:
            if not self._topics:
                return False
            self._topics.popleft()
            with contextlib.suppress(BlockingIOError):
                os.read(self._out, 1)
            return True

    def fileno(self) -> int:
        return self._out

    def ask(self, topics: Sequence[str]) -> None:
        with self._changed:
            for topic in topics:
                self._subscriptions[topic].append(self)
                self.tell(topic)

    def leave(self, topics: Sequence[str]) -> None:
        with self._changed:
            for topic in topics:
                left = [one for one in self._subscriptions.pop(topic, []) if one is not self]
                if left:
                    self._subscriptions[topic] = left

    def take(self) -> list[str]:
        with self._changed:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._out, 4096):
                    pass
            taken = list(self._topics)
            self._topics.clear()
            return taken

    def tell(self, topic: str) -> None:
        self._topics.append(topic)
        with contextlib.suppress(BlockingIOError):  # full, and so the reader wakes up anyway
            os.write(self._in, b".")

    def close(self) -> None:
        with self._changed:
            self.leave([topic for topic, some in self._subscriptions.items() if self in some])
        os.close(self._out)
        os.close(self._in)


class _Queue:
    """What one queue holds."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps
        #: What waits at each priority step; the next message on the left.
        self.lists: tuple[Waits, ...] = tuple(Waits() for _ in steps)
        #: Priority → its list.
        self.of = [self.lists[n] for n in lists_of(steps)]
        #: Priority and message → due time.
        self.due: dict[tuple[int, bytes], float] = {}
        #: What was pushed once, and isn't again.
        self.handed: set[str] = set()
        #: Consumer → delivery number → message; a consumer that holds nothing has no entry.
        self.in_flight: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        #: Consumer → its next delivery number.
        self.claimed: defaultdict[str, int] = defaultdict(int)
        #: Consumer whose messages were taken away → until when that is remembered.
        self.taken: dict[str, float] = {}
        #: Who compares it with the ledger ("": it was compared), and until when that counts.
        self.compared: tuple[str, float] = ("", 0.0)
        #: Consumer → end of its lease.
        self.leases: dict[str, float] = {}
        #: The newest last.
        self.dead: dict[str, DeadLetter] = {}
        #: Task id → its revocation, and until when that is remembered.
        self.revoked: dict[str, tuple[Revocation, float]] = {}
        #: Task, or "" for the whole queue → why it is paused.
        self.paused: dict[str, Pause] = {}
        #: Worker → its last report, and when it was made.
        self.reports: dict[str, tuple[bytes, float]] = {}
        #: How workers and children have ended, the newest first, and until when that is kept.
        self.gone: deque[tuple[bytes, float]] = deque(maxlen=GONE_MOST)
        #: Worker → commands that it hasn't taken, and until when they hold.
        self.commands: defaultdict[str, deque[tuple[bytes, float]]] = defaultdict(
            lambda: deque(maxlen=COMMANDS_MOST)
        )
        #: Id of a command → the answer, and until when it is kept.
        self.answers: dict[str, tuple[bytes, float]] = {}
        #: Task id and what it is about → the note, and until when it is kept.
        self.notes: dict[tuple[str, About], tuple[bytes, float]] = {}
        #: How many waiting consumers are to wake.
        self.bells = 0

    def promote(self, now: float) -> float | None:
        """Move what is due to the lists. When the next message is due, or None."""
        ready = sorted((due, key) for key, due in self.due.items() if due <= now)
        for _, (priority, raw) in ready:
            self.of[priority].append(raw)
            del self.due[priority, raw]
        return min(self.due.values(), default=None)

    def take(self, limit: int) -> Iterator[bytes]:
        """Up to ``limit`` messages, the most urgent first."""
        for messages in self.lists:
            while messages and limit > 0:
                limit -= 1
                yield messages.popleft()


class _Slots:
    """The slots of one limit."""

    def __init__(self) -> None:
        #: Holder → until when.
        self.held: dict[str, float] = {}
        #: Queue and holder → when its message is due.
        self.waiting: dict[tuple[str, str], float] = {}

    def take(self, slot: Slot, now: float) -> float:
        self._forget(now)
        self.waiting.pop((slot.queue, slot.holder), None)
        if slot.holder in self.held or len(self.held) < slot.most:
            self.held[slot.holder] = now + SLOT
            return 0.0
        return now + min(ASK_AGAIN_MOST, ASK_AGAIN + ASK_AGAIN_EACH * len(self.waiting))

    def hand_over(self, most: int, now: float) -> list[tuple[str, float]]:
        """Reserve free slots for those who wait longest. Their queues and due times."""
        self._forget(now)
        first = sorted(self.waiting, key=self.waiting.__getitem__)
        woken = []
        for queue, holder in first[: max(0, most - len(self.held))]:
            self.held[holder] = now + HANDED
            woken.append((queue, self.waiting.pop((queue, holder))))
        return woken

    def _forget(self, now: float) -> None:
        self.held = {holder: ends for holder, ends in self.held.items() if ends > now}
        self.waiting = {who: due for who, due in self.waiting.items() if due > now - 60}
