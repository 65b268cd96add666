"""What operators need of the broker on Redis: `jobs.broker.operating`."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.broker import scripts
from jobs.broker.connection import Connections, Run
from jobs.broker.letters import Letters
from jobs.broker.operating import (
    PARKED,
    Consumer,
    Operating,
    Parking,
    Pause,
    Revoked,
    Stats,
    Waiting,
)
from jobs.broker.redis_keys import Keys, member

#: Messages read or released at once.
_PAGE = 200

_PARKED_MS = int(PARKED * 1000)

#: Seconds for which the reports of workers outlive the last that said anything.
_REPORTED = 86_400


class RedisOperating(Letters, Operating):
    _redis: Connections
    #: The priorities at which a queue's lists begin, and priority → its list.
    _steps: Sequence[int]
    _lists: Sequence[int]

    def _keys(self, queue: str) -> Keys:
        raise NotImplementedError

    def _now(self) -> int:
        """The server's clock in milliseconds."""
        seconds, micros = self._redis.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

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

    # ------------------------------------------------------------------ calls

    def revoke(self, queue: str, task_id: str, seconds: float, *, terminate: bool) -> None:
        key = (self._keys(queue).revoked,)
        flag = "t" if terminate else ""
        self._redis.run(scripts.REVOKE, key, task_id, int(seconds * 1000), flag)

    def unrevoke(self, queue: str, task_id: str) -> None:
        self._redis.call("ZREM", self._keys(queue).revoked, task_id, f"t:{task_id}")

    def hasten(self, queue: str, raw: bytes, priority: int) -> bool:
        where = self._keys(queue).schedule
        return bool(self._redis.run(scripts.HASTEN, where, member(priority, raw)))

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
        members = [member(priority, raw) for raw, priority, _due in messages]
        return int(self._redis.call("ZREM", self._keys(queue).due, *members)) if members else 0

    # ------------------------------------------------------------------ looking

    def stats(self, queue: str) -> Stats:
        (waiting, due, dead, _), consumers = self._survey(queue)
        in_flight = sum(consumer.in_flight for consumer in consumers)
        alive = sum(consumer.lease > 0 for consumer in consumers)
        return Stats(waiting, in_flight, due, dead, alive)

    def consumers(self, queue: str) -> list[Consumer]:
        return self._survey(queue)[1]

    def _survey(self, queue: str) -> tuple[list[int], list[Consumer]]:
        keys = self._keys(queue)
        head = (keys.consumers, keys.due, keys.dead, *keys.lists)
        answer = self._redis.run(scripts.STATS, head, keys.inflight(""))
        now = answer[3]
        rows = zip(answer[4::3], answer[5::3], answer[6::3], strict=True)
        return answer[:4], [
            Consumer(name.decode(), (float(ends) - now) / 1000, held) for name, ends, held in rows
        ]

    def scan(self, queue: str) -> Iterator[bytes]:
        keys = self._keys(queue)
        # Along their way, so that none is missed that goes on meanwhile.
        for members in self._pages("ZSCAN", keys.due):
            yield from (form.partition(b"|")[2] for form in members[::2])
        for waiting in keys.lists:
            yield from self._elements(waiting)
        for consumers in self._pages("ZSCAN", keys.consumers):
            for consumer in consumers[::2]:
                for held in self._pages("HSCAN", keys.inflight(consumer.decode())):
                    yield from held[1::2]
        oldest = None
        while letters := self.dead_letters(queue, _PAGE, oldest):
            yield from (letter.raw for letter in letters)
            oldest = letters[-1].key

    def _pages(self, command: str, key: str) -> Iterator[list[bytes]]:
        """The answers of a command that goes on from a cursor."""
        cursor: Any = 0
        while True:
            cursor, page = self._redis.call(command, key, cursor, "COUNT", _PAGE)
            yield page
            if int(cursor) == 0:
                return

    def _elements(self, key: str) -> Iterator[bytes]:
        """From the end where producers push: what is pushed meanwhile shifts the rest into the
        pages that follow."""
        start = 0
        while page := self._redis.call("LRANGE", key, start, start + _PAGE - 1):
            yield from page
            start += _PAGE

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
        now = self._now()
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
            commands = [("HSET", key, worker, text), ("EXPIRE", key, _REPORTED)]
            self._redis.calls(commands)

    def reports(self, queue: str) -> Mapping[str, bytes]:
        flat = self._redis.call("HGETALL", self._keys(queue).workers)
        return {name.decode(): text for name, text in zip(flat[::2], flat[1::2], strict=True)}


def _pause(task: str, said: dict[str, Any]) -> Pause:
    return Pause(task, said["by"], said["why"], dt.datetime.fromisoformat(said["at"]))


def _due(member: bytes, at: bytes) -> Waiting:
    priority, _, raw = member.partition(b"|")
    return Waiting(raw, int(priority), math.floor(float(at)) / 1000)
