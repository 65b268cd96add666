"""What operators need of the broker on Redis: `jobs.broker.operating`."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from jobs.broker import scripts
from jobs.broker.connection import Connections, Run
from jobs.broker.operating import PARKED, Operating, Parking, Pause, Revoked, Waiting

#: Messages read or released at once.
_PAGE = 200

_PARKED_MS = int(PARKED * 1000)


class Keys(Protocol):
    """The names of one queue's keys, as far as they are needed here."""

    lists: tuple[str, ...]
    consumers: str
    due: str
    bell: str
    revoked: str
    paused: str
    workers: str

    def inflight(self, consumer: str) -> str: ...


class RedisOperating(Operating):
    _redis: Connections
    #: The priorities at which a queue's lists begin, and priority → its list.
    _steps: Sequence[int]
    _lists: Sequence[int]

    def _keys(self, queue: str) -> Keys:
        raise NotImplementedError

    # ------------------------------------------------------------------ pauses

    def pause(self, queue: str, pause: Pause) -> None:
        said = json.dumps({"by": pause.by, "why": pause.why, "at": pause.at.isoformat()})
        self._redis.call("HSET", self._keys(queue).paused, pause.task, said)

    def resume(self, queue: str, task: str = "") -> bool:
        keys, was = self._keys(queue), False
        where = (keys.paused, keys.due, keys.bell, *keys.lists)
        while True:
            paused, released = self._redis.run(scripts.RESUME, where, task, _PARKED_MS, _PAGE)
            was |= bool(paused)
            if released < _PAGE:
                return was

    def paused(self, queue: str) -> list[Pause]:
        flat = self._redis.call("HGETALL", self._keys(queue).paused)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return sorted(_pause(task.decode(), json.loads(said)) for task, said in pairs)

    def park(self, queue: str, consumer: str, deliveries: Sequence[Parking]) -> set[int]:
        keys = self._keys(queue)
        where = (keys.inflight(consumer), keys.due, keys.paused)
        runs: list[Run] = []
        for start in range(0, len(deliveries), _PAGE):
            part = [value for d in deliveries[start : start + _PAGE] for value in d]
            runs.append((scripts.PARK, where, (_PARKED_MS, *part)))
        return {int(number) for answer in self._redis.run_all(runs) for number in answer}

    # ------------------------------------------------------------------ taking away

    def take(
        self, queue: str, consumer: str, first: int, limit: int, lease: float
    ) -> list[Waiting]:
        keys = self._keys(queue)
        where = (keys.inflight(consumer), keys.consumers, *keys.lists)
        wanted = (consumer, int(lease * 1000), first, min(limit, _PAGE))
        answer = self._redis.run(scripts.TAKE, where, *wanted)
        pairs = zip(answer[::2], answer[1::2], strict=True)
        return [Waiting(raw, self._steps[step]) for raw, step in pairs]

    def pick(self, queue: str, consumer: str, number: int, lease: float, message: Waiting) -> bool:
        keys = self._keys(queue)
        where = (keys.inflight(consumer), keys.consumers, keys.lists[self._lists[message.priority]])
        wanted = (consumer, int(lease * 1000), number, message.raw)
        return bool(self._redis.run(scripts.PICK, where, *wanted))

    def withdraw(self, queue: str, messages: Sequence[Waiting]) -> int:
        members = [b"%d|%b" % (priority, raw) for raw, priority, _due in messages]
        return int(self._redis.call("ZREM", self._keys(queue).due, *members)) if members else 0

    # ------------------------------------------------------------------ looking

    def browse(self, queue: str, *, due: bool) -> Iterator[Waiting]:
        return self._browse_due(queue) if due else self._browse_waiting(queue)

    def _browse_due(self, queue: str) -> Iterator[Waiting]:
        key = self._keys(queue).due
        for start in itertools.count(0, _PAGE):
            page = self._redis.call("ZRANGE", key, start, start + _PAGE - 1, "WITHSCORES")
            yield from (_due(page[i], page[i + 1]) for i in range(0, len(page), 2))
            if not page:
                return

    def _browse_waiting(self, queue: str) -> Iterator[Waiting]:
        for priority, key in zip(self._steps, self._keys(queue).lists, strict=True):
            for end in itertools.count(1, _PAGE):
                page = self._redis.call("LRANGE", key, -end - _PAGE + 1, -end)
                yield from (Waiting(raw, priority) for raw in reversed(page))
                if len(page) < _PAGE:
                    break

    def holding(self, queue: str, consumer: str, numbers: Sequence[int]) -> list[bytes | None]:
        if not numbers:
            return []
        found: list[bytes | None] = self._redis.call(
            "HMGET", self._keys(queue).inflight(consumer), *numbers
        )
        return found

    def revocations(self, queue: str, count: int) -> list[Revoked]:
        key = self._keys(queue).revoked
        seconds, micros = self._redis.call("TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        page = self._redis.call(
            *("ZREVRANGEBYSCORE", key, "+inf", f"({now}", "WITHSCORES", "LIMIT", 0, 2 * count)
        )
        until = {page[i].decode(): float(page[i + 1]) / 1000 for i in range(0, len(page), 2)}
        found = [
            Revoked(name, f"t:{name}" in until, ends)
            for name, ends in until.items()
            if not name.startswith("t:")
        ]
        return found[:count]

    # ------------------------------------------------------------------ workers

    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        key = self._keys(queue).workers
        if text is None:
            self._redis.call("HDEL", key, worker)
        else:
            self._redis.call("HSET", key, worker, text)

    def reports(self, queue: str) -> Mapping[str, bytes]:
        flat = self._redis.call("HGETALL", self._keys(queue).workers)
        return {name.decode(): text for name, text in zip(flat[::2], flat[1::2], strict=True)}


def _pause(task: str, said: dict[str, Any]) -> Pause:
    return Pause(task, said["by"], said["why"], dt.datetime.fromisoformat(said["at"]))


def _due(member: bytes, at: bytes) -> Waiting:
    priority, _, raw = member.partition(b"|")
    return Waiting(raw, int(priority), math.floor(float(at)) / 1000)
