"""The broker on Redis or Valkey: names keys, runs scripts, reads their answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from jobs.broker import scripts
from jobs.broker.base import (
    PARKED,
    TAKEN_KEPT,
    About,
    Broker,
    Claim,
    Consumer,
    DeadLetter,
    Keeping,
    Later,
    Note,
    Outgoing,
    Parking,
    Pause,
    Returned,
    Revocation,
    Revoked,
    Stats,
    Subscription,
    Waiting,
    lists_of,
)
from jobs.broker.base import ended as ended_topic
from jobs.broker.base import progress as progress_topic
from jobs.broker.connection import Connections, RedisSubscription, Run
from jobs.broker.limiting import (
    ASK_AGAIN,
    ASK_AGAIN_EACH,
    ASK_AGAIN_MOST,
    HANDED,
    SLOT,
    Lock,
    Permit,
    Slot,
    Wish,
)
from jobs.broker.scripts import Script
from jobs.conf import STEPS
from jobs.exceptions import BrokerUnavailable, QueueRefused

#: What the key of a dead letter, a stream's entry id, looks like; others are nobody's.
_ENTRY = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")


def _dead_letter(key: str, flat: list[bytes]) -> DeadLetter:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    at = dt.datetime.fromtimestamp(int(key.partition("-")[0]) / 1000, dt.UTC)
    return DeadLetter(
        key, fields[b"message"], fields[b"reason"].decode(), at, fields[b"worker"].decode()
    )


#: Celery's separator of queue and priority step.
_SEPARATOR = "\x06\x16"

#: Messages read or released at once.
_PAGE = 200

_PARKED_MS = int(PARKED * 1000)

#: Seconds for which the reports of workers outlive the last that said anything.
_REPORTED = 86_400


def _pause(task: str, said: dict[str, Any]) -> Pause:
    return Pause(task, said["by"], said["why"], dt.datetime.fromisoformat(said["at"]))


def _due(member: bytes, at: bytes) -> Waiting:
    priority, _, raw = member.partition(b"|")
    return Waiting(raw, int(priority), math.floor(float(at)) / 1000)


#: Most values in one call of a script: Lua can't unpack more than some thousands.
_CHUNK = 1000

#: Most holders of slots in one call of a script.
_HOLDERS = 300

#: Most messages of one call that puts them on a queue: the server works at it while the next is
#: made, and a megabyte at a time would not stay in the processor's cache.
_PART = 200


class _Keys:
    """The names of one queue's keys: `jobs/broker/lua/README.md`."""

    def __init__(self, prefix: str, queue: str, steps: Sequence[int]) -> None:
        names = [queue] + [f"{queue}{_SEPARATOR}{step}" for step in steps[1:]]
        #: A list for each priority step.
        self.lists = tuple(prefix + name for name in names)
        self._tag = f"{prefix}{{{queue}}}"
        self.consumers = f"{self._tag}:consumers"
        self.due = f"{self._tag}:due"
        self.dead = f"{self._tag}:dead"
        self.bell = f"{self._tag}:bell"
        self.revoked = f"{self._tag}:revoked"
        self.paused = f"{self._tag}:paused"
        self.workers = f"{self._tag}:workers"
        # Ready-made for the scripts of every send, one for each priority.
        self.push = tuple((self.lists[n], self.bell) for n in lists_of(steps))
        self.schedule = (self.due, self.bell)
        #: The lists that sending writes to.
        self.written = (*self.lists, self.bell)

    def inflight(self, consumer: str) -> str:
        return f"{self._tag}:inflight:{consumer}"

    def taken(self, consumer: str) -> str:
        return f"{self._tag}:taken:{consumer}"

    def note(self, about: About, task_id: str) -> str:
        return f"{self._tag}:{about}:{task_id}"

    def claimed(self, consumer: str) -> str:
        return f"{self._tag}:claimed:{consumer}"


class RedisBroker(Broker):
    def __init__(
        self,
        url: str,
        *,
        prefix: str = "",
        timeout: float = 5.0,
        steps: Sequence[int] = STEPS,
        revive: Callable[[], object] | None = None,
    ) -> None:
        """``timeout``: seconds for connecting and for the answer to one command.
        ``steps``: the priorities at which a queue's lists begin.
        ``revive``: called before each new connection; starts a server that may have gone."""
        self._prefix = prefix
        self._steps = steps
        #: Priority → its list, and the same in the form that the scripts read.
        self._lists = lists_of(steps)
        self._digits = "".join(map(str, self._lists))
        self._redis = Connections(url, timeout, revive)
        self.address = self._redis.address
        self._names: dict[str, _Keys] = {}

    def _keys(self, queue: str) -> _Keys:
        keys = self._names.get(queue)
        if keys is None:
            keys = self._names[queue] = _Keys(self._prefix, queue, self._steps)
        return keys

    # ------------------------------------------------------------------ producers

    def push(self, messages: Iterable[Outgoing]) -> None:
        parts: list[list[Outgoing]] = []

        def runs() -> Iterator[list[Run]]:
            for part in _parts(messages):
                parts.append(part)
                yield self._pushes(part)

        answers = self._redis.try_parts(runs())
        if any(isinstance(answer, Exception) for answer in answers):
            raise self._not_put(parts, answers)

    def _not_put(
        self, parts: Sequence[Sequence[Outgoing]], answers: Sequence[Any]
    ) -> BrokerUnavailable:
        """The error of a push of which the server has refused something."""
        groups: dict[tuple[int, Script, tuple[str, ...]], tuple[str, list[int]]] = {}
        place = itertools.count()
        for n, part in enumerate(parts):  # in the order of `_pushes`
            for queue, _raw, priority, due in part:
                script = scripts.PUSH if due is None else scripts.SCHEDULE
                keys = self._keys(queue)
                where = keys.push[priority] if due is None else keys.schedule
                groups.setdefault((n, script, where), (queue, []))[1].append(next(place))
        refused: dict[str, Exception] = {}
        passing: BrokerUnavailable | None = None
        unsent: list[int] = []
        for (queue, places), answer in zip(groups.values(), answers, strict=True):
            if not isinstance(answer, Exception):
                continue
            unsent += places
            said = self._redis.translated(answer)
            if isinstance(said, BrokerUnavailable) and not isinstance(said, QueueRefused):
                passing = said
            else:
                refused.setdefault(queue, said)
        error = passing or self._refusal(refused)
        error.unsent = frozenset(unsent)
        return error

    def _refusal(self, refused: dict[str, Exception]) -> QueueRefused:
        said = "; ".join(f"{queue!r}: {error}" for queue, error in refused.items())
        return QueueRefused(
            f"Redis at {self._redis.address} takes no messages for the queue {said}",
            queues=list(refused),
        )

    def check_queues(self, queues: Collection[str]) -> None:
        named = [(queue, key) for queue in queues for key in self._keys(queue).written]
        refused: dict[str, Exception] = {}
        answers = self._redis.try_calls([("LLEN", key) for _, key in named])
        for (queue, _), answer in zip(named, answers, strict=True):
            if isinstance(answer, Exception) and "command" not in str(answer):
                said = self._redis.translated(answer)
                if isinstance(said, BrokerUnavailable) and not isinstance(said, QueueRefused):
                    raise said from answer
                refused.setdefault(queue, said)
        if refused:
            raise self._refusal(refused)

    def briefly(self, *, insist: bool) -> contextlib.AbstractContextManager[None]:
        return self._redis.briefly(insist=insist)

    def _pushes(self, messages: Sequence[Outgoing]) -> list[Run]:
        groups: dict[tuple[Script, tuple[str, ...]], list[Any]] = {}
        for queue, raw, priority, due in messages:
            keys = self._keys(queue)
            if due is None:
                groups.setdefault((scripts.PUSH, keys.push[priority]), []).append(raw)
            else:
                group = groups.setdefault((scripts.SCHEDULE, keys.schedule), [])
                group += (_ms(due), _member(priority, raw))
        return [(script, keys, args) for (script, keys), args in groups.items()]

    # ------------------------------------------------------------------ consumers

    def claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Claim:
        run = self._claim(queue, consumer, first, limit, lease)
        return _claimed(self._redis.run_all([run])[0], first)

    def wait(self, queues: Sequence[str], timeout: float) -> None:
        bells = [self._keys(queue).bell for queue in queues]
        self._redis.block(timeout, "BLPOP", *bells, 0)

    def wait_and_claim(
        self, queue: str, consumer: str, first: int, limit: int, lease: float, timeout: float
    ) -> Claim:
        # Sent together: the message comes with the answer to the bell, one way there and back
        # earlier.
        run = self._claim(queue, consumer, first, limit, lease)
        answer = self._redis.block(timeout, "BLPOP", self._keys(queue).bell, 0, then=run)
        return _claimed(answer, first)

    def _claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Run:
        keys = self._keys(queue)
        mine = (keys.inflight(consumer), keys.consumers, keys.revoked, keys.claimed(consumer))
        limit = min(limit, _CHUNK)
        args = (consumer, int(lease * 1000), first, limit, self._digits)
        return scripts.CLAIM, (*mine, keys.paused, keys.due, keys.bell, *keys.lists), args

    def ack(
        self, queue: str, consumer: str, numbers: Sequence[int], ended: Sequence[str] = ()
    ) -> int:
        key, channel = (self._keys(queue).inflight(consumer),), self._channel(ended_topic(""))
        runs: list[Run] = [
            (scripts.ACK, key, (channel, len(part), *part)) for part in _cut(numbers)
        ]
        runs += [(scripts.ACK, key, (channel, 0, *part)) for part in _cut(ended)]
        return sum(self._redis.run_all(runs))

    def retry(
        self, queue: str, consumer: str, number: int, raw: bytes, priority: int, due: float
    ) -> bool:
        run = self._retry(queue, consumer, Later(number, raw, priority, due))
        return bool(self._redis.run_all([run])[0])

    def retry_all(self, queue: str, consumer: str, deliveries: Sequence[Later]) -> None:
        self._redis.run_all([self._retry(queue, consumer, later) for later in deliveries])

    def _retry(self, queue: str, consumer: str, later: Later) -> Run:
        keys = self._keys(queue)
        where = (keys.inflight(consumer), keys.due, keys.bell)
        return (
            scripts.RETRY,
            where,
            (later.number, _ms(later.due), _member(later.priority, later.raw)),
        )

    def release(self, queue: str, consumer: str, deliveries: Sequence[Returned]) -> int:
        keys = self._keys(queue)
        # The newest first: the oldest ends up where the next claim takes from.
        newest_first = sorted(deliveries, key=lambda d: d.number, reverse=True)
        lists = self._lists
        args = [v for d in newest_first for v in (d.number, lists[d.priority], d.raw or b"")]
        where = (keys.inflight(consumer), keys.bell, *keys.lists)
        # A multiple of three, so that no triple is cut.
        runs: list[Run] = [(scripts.RELEASE, where, part) for part in _cut(args, 3 * 300)]
        return sum(self._redis.run_all(runs))

    def held(self, queue: str, consumer: str, numbers: Sequence[int]) -> set[int]:
        key = (self._keys(queue).inflight(consumer),)
        runs: list[Run] = [(scripts.HELD, key, part) for part in _cut(numbers)]
        answers = itertools.chain.from_iterable(self._redis.run_all(runs))
        return {number for number, held in zip(numbers, answers, strict=True) if held}

    def taken(self, queue: str, consumer: str) -> bool:
        return bool(self._redis.call("EXISTS", self._keys(queue).taken(consumer)))

    def revoked(self, queue: str, ids: Sequence[str]) -> list[Revocation]:
        key = (self._keys(queue).revoked,)
        runs: list[Run] = [(scripts.REVOKED, key, part) for part in _cut(ids)]
        return [Revocation(said) for answer in self._redis.run_all(runs) for said in answer]

    def note(self, queue: str, notes: Sequence[Note], seconds: float) -> None:
        keys, kept = self._keys(queue), int(seconds * 1000)
        runs: list[Run] = []
        for task_id, about, value in notes:
            told = self._channel(progress_topic(task_id)) if about is About.PROGRESS else ""
            runs.append((scripts.NOTE, (keys.note(about, task_id),), (kept, value, told)))
        self._redis.run_all(runs)

    def noted(self, queue: str, task_id: str, about: About) -> bytes | None:
        found: bytes | None = self._redis.call("GET", self._keys(queue).note(about, task_id))
        return found

    def forget_notes(self, queue: str, task_ids: Sequence[str], about: About) -> None:
        keys = [self._keys(queue).note(about, task_id) for task_id in task_ids]
        self._redis.calls([("DEL", *part) for part in _cut(keys)])

    def leave(self, queue: str, consumer: str) -> None:
        keys = self._keys(queue)
        self._redis.run(scripts.FORGET, (keys.inflight(consumer), keys.consumers), consumer)

    # ------------------------------------------------------------------ supervisors

    def renew(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        key = (self._keys(queue).consumers,)
        self._redis.run_all(
            [(scripts.RENEW, key, (int(lease * 1000), *part)) for part in _cut(consumers)]
        )

    def expired(self, queue: str) -> list[str]:
        key = self._keys(queue).consumers
        now = self._now()
        found = self._redis.call("ZRANGEBYSCORE", key, "-inf", f"({now}", "LIMIT", 0, 100)
        return [name.decode() for name in found]

    def reclaim(self, queue: str, consumer: str, edit: Callable[[int, bytes], Returned]) -> int:
        keys = self._keys(queue)
        key = keys.inflight(consumer)
        # First: from here on what it does with what it held must not count.
        self._redis.run(scripts.TAKEN, (keys.taken(consumer),), int(TAKEN_KEPT * 1000))
        given_back = 0
        cursor: Any = 0
        while True:
            cursor, flat = self._redis.call("HSCAN", key, cursor, "COUNT", 300)
            held = [
                edit(int(number), raw) for number, raw in zip(flat[::2], flat[1::2], strict=True)
            ]
            given_back += self.release(queue, consumer, held)
            if int(cursor) == 0:
                break
        self.leave(queue, consumer)
        return given_back

    # ------------------------------------------------------------------ notifications

    @contextlib.contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        connection = self._redis.subscribe([self._channel(topic) for topic in topics])
        try:
            yield RedisSubscription(connection, self._redis.address)
        finally:
            connection.disconnect()

    def notify(self, topic: str) -> None:
        self._redis.call("PUBLISH", self._channel(topic), 1)

    def chord_size(self, group_id: str) -> int | None:
        try:
            said = self._redis.call("GET", f"celery-taskset-meta-{group_id}.s")
        except (BrokerUnavailable, ResponseError) as error:
            if _may_not(error):
                return None
            raise
        return int(said) if said is not None and said.isdigit() and int(said) else None

    def keeping(self) -> Keeping:
        names = ("maxmemory-policy", "appendonly", "save")
        try:
            answers = self._redis.calls([("CONFIG", "GET", name) for name in names])
        except (BrokerUnavailable, ResponseError) as error:
            if _may_not(error):
                return Keeping(self._eviction())
            raise
        told = {pair[0].decode(): pair[1].decode() for pair in answers if pair}
        on_disk = told["appendonly"] == "yes" or bool(told["save"]) if len(told) == 3 else None
        return Keeping(told.get("maxmemory-policy", ""), on_disk)

    def _eviction(self) -> str:
        """As INFO tells it, for whom CONFIG is forbidden."""
        try:
            said = self._redis.call("INFO", "memory").decode()
        except (BrokerUnavailable, ResponseError) as error:
            if _may_not(error):
                return ""
            raise
        lines = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        return str(lines.get("maxmemory_policy", ""))

    def ping(self) -> None:
        self._redis.call("PING")

    def close(self) -> None:
        self._redis.close()

    def _channel(self, topic: str) -> str:
        return f"{self._prefix}jobs:{topic}"

    # ------------------------------------------------------------------ dead letters

    def dead_letter(self, queue: str, consumer: str, number: int, reason: str, worker: str) -> bool:
        keys = self._keys(queue)
        where = (keys.inflight(consumer), keys.dead)
        text = reason.encode("utf-8", "backslashreplace")
        return bool(self._redis.run(scripts.DEAD_LETTER, where, number, text, worker))

    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        text = reason.encode("utf-8", "backslashreplace")
        fields = ("reason", text, "worker", worker, "message", raw)
        self._redis.call("XADD", self._keys(queue).dead, "*", *fields)

    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        if before is not None and not _ENTRY.fullmatch(before):
            return []
        newest = f"({before}" if before else "+"
        found = self._redis.call("XREVRANGE", self._keys(queue).dead, newest, "-", "COUNT", count)
        return [_dead_letter(key.decode(), fields) for key, fields in found]

    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        if not _ENTRY.fullmatch(key):
            return None
        found = self._redis.call("XRANGE", self._keys(queue).dead, key, key)
        return _dead_letter(found[0][0].decode(), found[0][1]) if found else None

    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        keys = self._keys(queue)
        where = (keys.dead, *keys.push[priority])
        return bool(_ENTRY.fullmatch(key)) and bool(
            self._redis.run(scripts.REQUEUE, where, key, raw or b"")
        )

    def discard(self, queue: str, key: str) -> bool:
        return bool(_ENTRY.fullmatch(key)) and bool(
            self._redis.call("XDEL", self._keys(queue).dead, key)
        )

    # ------------------------------------------------------------------ operators

    def _now(self) -> int:
        """The server's clock in milliseconds."""
        seconds, micros = self._redis.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

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

    def revoke(self, queue: str, task_id: str, seconds: float, *, terminate: bool) -> None:
        key = (self._keys(queue).revoked,)
        flag = "t" if terminate else ""
        self._redis.run(scripts.REVOKE, key, task_id, int(seconds * 1000), flag)

    def unrevoke(self, queue: str, task_id: str) -> None:
        self._redis.call("ZREM", self._keys(queue).revoked, task_id, f"t:{task_id}")

    def hasten(self, queue: str, raw: bytes, priority: int) -> bool:
        where = self._keys(queue).schedule
        return bool(self._redis.run(scripts.HASTEN, where, _member(priority, raw)))

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
        members = [_member(priority, raw) for raw, priority, _due in messages]
        return int(self._redis.call("ZREM", self._keys(queue).due, *members)) if members else 0

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

    # ------------------------------------------------------------------ limits

    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        runs: list[Run] = [
            (scripts.PERMITS, (f"{self._limit(wish.limit)}:rate",), _wished(wish))
            for wish in wishes
        ]
        return [
            [Permit(max(0, at - now) / 1e6, at / 1e6) if at else Permit(0.0) for at in answers]
            for now, *answers in self._redis.run_all(runs)
        ]

    def set_rate(self, task: str, text: bytes | None) -> bool:
        key = f"{self._prefix}{{limits}}:rates"
        if text is None:
            return bool(self._redis.call("HDEL", key, task))
        return not self._redis.call("HSET", key, task, text)

    def rates(self) -> Mapping[str, bytes]:
        flat = self._redis.call("HGETALL", f"{self._prefix}{{limits}}:rates")
        return {name.decode(): text for name, text in zip(flat[::2], flat[1::2], strict=True)}

    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        asked = [_millis(value) for value in (SLOT, ASK_AGAIN, ASK_AGAIN_EACH, ASK_AGAIN_MOST)]
        parts = _by_limit(slots)
        runs: list[Run] = []
        for (limit, most), places in parts:
            pairs = [value for n in places for value in (slots[n].queue, slots[n].holder)]
            runs.append((scripts.SLOTS, self._slots(limit), (most, *asked, *pairs)))
        times = [0.0] * len(slots)
        for (_, places), answers in zip(parts, self._redis.run_all(runs), strict=True):
            for place, at in zip(places, answers, strict=True):
                times[place] = at / 1000
        return times

    def keep_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, _), places in _by_limit(slots):
            args: list[int | str] = [_millis(SLOT), *(slots[n].holder for n in places)]
            runs.append((scripts.KEEP, self._slots(limit)[:1], args))
        self._redis.run_all(runs)

    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, most), places in _by_limit(slots):
            args: list[int | str] = [most, _millis(HANDED)]
            for n in places:
                args += (_millis(slots[n].due), slots[n].queue, slots[n].holder)
            runs.append((scripts.WAIT, self._slots(limit), args))
        self._wake(self._redis.run_all(runs))

    def free_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, most), places in _by_limit(slots):
            args: list[int | str] = [most, _millis(HANDED), *(slots[n].holder for n in places)]
            runs.append((scripts.FREE, self._slots(limit), args))
        self._wake(self._redis.run_all(runs))

    def _wake(self, answers: Sequence[Sequence[bytes]]) -> None:
        """Have those be due now for whom a slot is kept."""
        due: defaultdict[str, list[int]] = defaultdict(list)
        for flat in answers:
            for waiter, at in zip(flat[::2], flat[1::2], strict=True):
                due[waiter.partition(b"\x06")[0].decode()].append(int(float(at)))
        self._redis.run_all(
            [(scripts.WAKE, self._keys(queue).schedule, times) for queue, times in due.items()]
        )

    def lock(self, locks: Sequence[Lock]) -> list[str]:
        runs: list[Run] = [
            (
                scripts.LOCK,
                (self._lock(lock.name),),
                (lock.task_id, max(1, _millis(lock.seconds)), lock.take.value),
            )
            for lock in locks
        ]
        return [answer.decode() for answer in self._redis.run_all(runs)]

    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        runs: list[Run] = [
            (scripts.UNLOCK, (self._lock(lock.name),), (lock.task_id, lock.take.value))
            for lock in locks
        ]
        return [answer.decode() for answer in self._redis.run_all(runs)]

    def locked(self, names: Sequence[str]) -> list[str]:
        found = self._redis.calls([("GET", self._lock(name)) for name in names]) if names else []
        return ["" if not value or value[:1] == b"-" else value.decode() for value in found]

    def _limit(self, name: str) -> str:
        return f"{self._prefix}{{limit:{name}}}"

    def _slots(self, name: str) -> tuple[str, str]:
        limit = self._limit(name)
        return f"{limit}:held", f"{limit}:waiting"

    def _lock(self, name: str) -> str:
        return f"{self._prefix}{{unique:{name}}}"


def _may_not(error: Exception) -> bool:
    """Whether our user may not ask that, or the server doesn't know what is asked."""
    return isinstance(error, ResponseError) or isinstance(error.__cause__, NoPermissionError)


def _claimed(answer: list[Any], first: int) -> Claim:
    next_due, revocations, paused, *raws = answer
    if revocations < 0:
        return Claim([], None, resume=-revocations)
    due = None if next_due < 0 else next_due / 1000
    return Claim(list(enumerate(raws, first)), due, revocations > 0, None, paused > 0)


def _ms(seconds: float) -> int:
    # Up, never down: nothing runs before its time.
    return math.ceil(seconds * 1000)


def _cut(values: Sequence[Any], size: int = _CHUNK) -> Iterator[Sequence[Any]]:
    for i in range(0, len(values), size):
        yield values[i : i + size]


def _parts(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    rest = iter(messages)
    while part := list(itertools.islice(rest, _PART)):
        yield part


def _member(priority: int, raw: bytes) -> bytes:
    return b"%d|%b" % (priority, raw)


def _wished(wish: Wish) -> tuple[float, ...]:
    longest = -1 if wish.within is None else round(wish.within * 1e6)
    interval = wish.rate.interval * 1e6
    times = (round(at * 1e6) for at in wish.before)
    return interval, wish.rate.burst, longest, wish.unused, *times


def _by_limit(slots: Sequence[Slot]) -> list[tuple[tuple[str, int], list[int]]]:
    """The places in the sequence of each limit's slots, as many as one call takes."""
    places: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for n, slot in enumerate(slots):
        places[slot.limit, slot.most].append(n)
    return [
        (limit, all_[i : i + _HOLDERS])
        for limit, all_ in places.items()
        for i in range(0, len(all_), _HOLDERS)
    ]


def _millis(seconds: float) -> int:
    return round(seconds * 1000)
