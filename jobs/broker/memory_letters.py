"""Dead letters in dicts: `jobs.broker.letters`."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from jobs.broker.letters import DeadLetter, Letters


class MemoryLetters(Letters):
    _clock: Callable[[], float]
    #: Of `jobs.broker.memory`, which says what a queue holds.
    _queues: defaultdict[str, Any]
    _changed: threading.Condition

    def __init__(self) -> None:
        super().__init__()
        self._dead_numbers = itertools.count(1)

    def _ring(self, queue: Any, count: int) -> None:
        raise NotImplementedError

    def _take_back(self, queue: str, consumer: str, number: int) -> bytes | None:
        raise NotImplementedError

    def dead_letter(self, queue: str, consumer: str, number: int, reason: str, worker: str) -> bool:
        with self._changed:
            raw = self._take_back(queue, consumer, number)
            if raw is None:
                return False
            self.bury(queue, raw, reason, worker)
            return True

    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        with self._changed:
            now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
            key = str(next(self._dead_numbers))
            self._queues[queue].dead[key] = DeadLetter(key, raw, reason, now, worker)

    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        with self._changed:
            newest_first: Iterable[DeadLetter] = reversed(self._queues[queue].dead.values())
            older = [d for d in newest_first if before is None or int(d.key) < int(before)]
            return older[:count]

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
