"""What operators need of the broker in dicts: `jobs.broker.operating`."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jobs.broker.operating import (
    PARKED,
    Consumer,
    Operating,
    Parking,
    Pause,
    Revocation,
    Revoked,
    Stats,
    Waiting,
)


class MemoryOperating(Operating):
    _clock: Callable[[], float]
    #: Of `jobs.broker.memory`, which says what a queue holds.
    _queues: defaultdict[str, Any]
    _changed: threading.Condition

    def _ring(self, queue: Any, count: int) -> None:
        raise NotImplementedError

    def _take_back(self, queue: str, consumer: str, number: int) -> bytes | None:
        raise NotImplementedError

    # ------------------------------------------------------------------ pauses

    def pause(self, queue: str, pause: Pause) -> None:
        with self._changed:
            self._queues[queue].paused[pause.task] = pause

    def resume(self, queue: str, task: str = "") -> bool:
        with self._changed:
            q = self._queues[queue]
            was = q.paused.pop(task, None) is not None
            for key, due in q.due.items():
                if task and due >= PARKED:
                    q.due[key] = min(due - PARKED, self._clock())
            self._ring(q, len(q.due) + sum(map(len, q.lists)))
            return was

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
                    q.due[priority, raw] = PARKED + self._clock()
                    parked.add(number)
        return parked

    # ------------------------------------------------------------------ calls

    def revoke(self, queue: str, task_id: str, seconds: float, *, terminate: bool) -> None:
        with self._changed:
            q, now = self._queues[queue], self._clock()
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
            q.due[priority, raw] = min(due, self._clock())
            self._ring(q, 1)
            return True

    # ------------------------------------------------------------------ taking away

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
            q.leases[consumer] = self._clock() + lease
            return True

    def withdraw(self, queue: str, messages: Sequence[Waiting]) -> int:
        with self._changed:
            due = self._queues[queue].due
            return sum(due.pop((m.priority, m.raw), None) is not None for m in messages)

    # ------------------------------------------------------------------ looking

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
            q, now = self._queues[queue], self._clock()
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

    def holding(self, queue: str, consumer: str, numbers: Sequence[int]) -> list[bytes | None]:
        with self._changed:
            held = self._queues[queue].in_flight.get(consumer, {})
            return [held.get(number) for number in numbers]

    def revocations(self, queue: str, count: int) -> list[Revoked]:
        with self._changed:
            known, now = self._queues[queue].revoked, self._clock()
            found = [Revoked(i, said > 1, ends) for i, (said, ends) in known.items() if ends > now]
            return sorted(found, key=lambda revoked: -revoked.until)[:count]

    # ------------------------------------------------------------------ workers

    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        with self._changed:
            reports = self._queues[queue].reports
            if text is None:
                reports.pop(worker, None)
            else:
                reports[worker] = text

    def reports(self, queue: str) -> Mapping[str, bytes]:
        with self._changed:
            return dict(self._queues[queue].reports)
