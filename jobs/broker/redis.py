"""The broker on Redis or Valkey: names keys, runs scripts, reads their answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from redis.exceptions import NoPermissionError, ResponseError

from jobs.broker import connection, scripts
from jobs.broker.base import (
    CLAIM_MOST,
    COMMANDS_MOST,
    COMPARED,
    COMPARING,
    GONE_KEPT,
    GONE_MOST,
    KNOWN_AGAIN,
    PARKED,
    QUEUES_KNOWN,
    READABLE,
    SHARDS_KNOWN,
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
    Survey,
    Waiting,
    lists_of,
)
from jobs.broker.base import ended as ended_topic
from jobs.broker.base import progress as progress_topic
from jobs.broker.celery import CeleryChannels
from jobs.broker.celery_ends import CeleryEnds
from jobs.broker.celery_ends_redis import RedisCeleryEnds
from jobs.broker.celery_redis import RedisCeleryChannels
from jobs.broker.cluster import Cluster
from jobs.broker.connection import IN_CLUSTER, Command, Connections, Ready, RedisSubscription, Run
from jobs.broker.counting import OTHER, SECONDS, SENT, TASKS, Counts, Span
from jobs.broker.damage import Damage
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
from jobs.broker.tenants import MARK
from jobs.conf import SHARDS_MOST, STEPS
from jobs.conf.address import Kind
from jobs.exceptions import (
    BrokerUnavailable,
    ConfigurationError,
    NotReplicated,
    QueueRefused,
)

#: Celery's separator of queue and priority step.
_SEPARATOR = "\x06\x16"

#: Names that begin with a brace would make an empty hash tag, which a Cluster ignores. They get a
#: colon in front, and so do those that have one there, so that no two become the same.
_UNTAGGED = re.compile(r":*\}")

#: A stream's entry id, which is the key of a dead letter.
_ENTRY = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")

_PARKED_MS = int(PARKED * 1000)

#: The latest moment that a datetime can hold, and one after all those of parked messages; both in
#: milliseconds. Anybody who reaches the server can have written a later one.
_LAST_MS, _NEVER_MS = 253_402_300_799_000, 9e15

#: Messages read or released at once.
_PAGE = 200

#: Most values in one call of a script: Lua can't unpack more than some thousands.
_CHUNK = 1000

#: Most messages in one call of `push`. The server works on them while the next ones are packed,
#: and they stay in the processor's cache, which a megabyte would not.
_PART = 200

#: Up to so many queues are asked for one by one, in one round trip; more of them in so many parts.
_ASIDE = 16

#: On a Cluster, so many ends are told to all nodes, which costs each of them some microseconds. For
#: more of them it is cheaper to ask the nodes first who waits.
_TOLD = 8

#: Most holders of slots in one call of a script.
_HOLDERS = 300

#: Most spans read by one call of a script.
_SPANS = 100

#: Command → the type of the key that it reads.
_TYPES: dict[object, str] = {"HGETALL": "hash", "HMGET": "hash", "ZRANGE": "zset", "LRANGE": "list"}

#: Seconds for which the workers' reports are kept after the last of them.
_REPORTED = 86_400


class _Keys:
    """The names of one queue's keys: `jobs/broker/lua/README.md`."""

    def __init__(
        self, prefix: str, steps: Sequence[int], metrics: bool, in_cluster: bool, queue: str
    ) -> None:
        if in_cluster and _UNTAGGED.match(queue):
            queue = f":{queue}"
        self._tag = f"{prefix}{{{queue}}}"
        # Celery's names have no tag. It doesn't know a Cluster.
        first = self._tag if in_cluster else prefix + queue
        #: A list for each priority step.
        self.lists = (first, *(f"{first}{_SEPARATOR}{step}" for step in steps[1:]))
        self.consumers = f"{self._tag}:consumers"
        self.due = f"{self._tag}:due"
        self.dead = f"{self._tag}:dead"
        self.bell = f"{self._tag}:bell"
        #: How many messages of tenants wait on each list; begins the names of what holds them.
        self.fair = f"{self._tag}:fair"
        self.revoked = f"{self._tag}:revoked"
        self.paused = f"{self._tag}:paused"
        self.workers = f"{self._tag}:workers"
        self.reported = f"{self._tag}:reported"
        self.gone = f"{self._tag}:gone"
        self.compared = f"{self._tag}:compared"
        #: What the names of all keys with numbers begin with.
        self.metrics = f"{self._tag}:metrics:"
        # Ready-made for the scripts of every send, one for each priority.
        counted = (self.metrics,) if metrics else ()
        self.push = tuple((self.lists[n], self.bell, *counted) for n in lists_of(steps))
        self.push_fair = tuple((*where[:2], self.fair, *counted) for where in self.push)
        self.schedule = (self.due, self.bell, *counted)

    def push_once(self, priority: int, what: str) -> tuple[str, ...]:
        where, _bell, *counted = self.push[priority]
        return (where, f"{self._tag}:handed:{what}", *counted)

    @functools.cached_property
    def ready(self) -> tuple[Ready, ...]:
        """What pushes a single message, one for each priority."""
        return tuple(Ready(scripts.PUSH, where) for where in self.push)

    def turns(self, place: int) -> str:
        """The tenants of a list in the order of their turns; under "" the list itself."""
        return f"{self.fair}:{place}"

    def of_tenant(self, place: int, tenant: bytes) -> bytes:
        return b"%b:%b" % (self.turns(place).encode(), tenant)

    def inflight(self, consumer: str) -> str:
        return f"{self._tag}:inflight:{consumer}"

    def claimed(self, consumer: str) -> str:
        return f"{self._tag}:claimed:{consumer}"

    def taken(self, consumer: str) -> str:
        return f"{self._tag}:taken:{consumer}"

    def note(self, about: About, task_id: str) -> str:
        return f"{self._tag}:{about}:{task_id}"

    def commands(self, worker: str) -> str:
        return f"{self._tag}:commands:{worker}"

    def answer(self, command_id: str) -> str:
        return f"{self._tag}:answer:{command_id}"


class RedisBroker(Broker):
    def __init__(
        self,
        url: str,
        *,
        prefix: str = "",
        timeout: float = 5.0,
        steps: Sequence[int] = STEPS,
        metrics: bool = False,
        revive: Callable[[], object] | None = None,
    ) -> None:
        """``timeout``: seconds for connecting and for the answer to one command.
        ``steps``: the priorities at which a queue's lists begin.
        ``metrics``: whether what is pushed is counted.
        ``revive``: called before each new connection; starts a server that may have gone."""
        self._prefix = prefix
        self._steps = steps
        #: Priority → its list, and the same as the digits that the scripts read.
        self._lists = lists_of(steps)
        self._digits = "".join(map(str, self._lists))
        #: How long to wait for replicas, in milliseconds: shorter than for the answer itself, as
        #: the server's own time-outs come up to 100 ms late. 0 would be for ever.
        self._patience = max(1, _ms(min(timeout / 2, timeout - 0.2)))
        where = connection.read(url)
        in_cluster = where.kind is Kind.CLUSTER
        if in_cluster and "{" in prefix:
            # Redis would take what follows it for the tag, instead of the queue's name.
            raise ConfigurationError(
                "JOBS['KEY_PREFIX'] has a {, which means something to a Cluster: leave it out."
            )
        self._redis: Connections | Cluster
        self._redis = Cluster(where, timeout) if in_cluster else Connections(where, timeout, revive)
        self.address = self._redis.address
        #: Whether a command can touch one queue alone, since the keys of each are on one node.
        self._apart = in_cluster
        self._ack = scripts.ACK_IN_CLUSTER if in_cluster else scripts.ACK
        keys_of = functools.partial(_Keys, prefix, tuple(steps), metrics, in_cluster)
        #: Queue → its keys.
        self._keys = functools.cache(keys_of)
        self._ended = self._channel(ended_topic(""))
        #: Undeclared queue → when it is to be remembered again (`time.monotonic`).
        self._remember_at: dict[str, float] = {}
        self._damage = Damage()

    # ------------------------------------------------------------------ producers

    def push(self, messages: Iterable[Outgoing], replicas: int = 0) -> None:
        if type(messages) is tuple and len(messages) == 1 and not replicas:
            ((queue, raw, priority, due, fair, once),) = messages
            if due is None and fair is False and not once:  # a single send needs no generators
                answer = self._redis.try_ready(self._keys(queue).ready[priority], raw)
                if isinstance(answer, Exception):
                    self._refused([messages], [answer])
                return
        parts: list[Sequence[Outgoing]] = []

        def runs() -> Iterator[list[Run]]:
            rest = iter(messages)
            while part := list(itertools.islice(rest, _PART)):
                parts.append(part)
                yield self._pushes(part)

        if replicas:
            # In the same exchange: WAIT is about what its own connection has written.
            wait = ("WAIT", replicas, self._patience)
            *answers, acknowledged = self._redis.try_parts(runs(), then=wait)
        else:
            answers, acknowledged = self._redis.try_parts(runs()), 0
        if any(isinstance(answer, Exception) for answer in answers):
            self._refused(parts, answers)
        if isinstance(acknowledged, Exception) or acknowledged < replicas:
            raise NotReplicated(
                f"Redis at {self.address} has the calls, but of {replicas} replicas that are "
                f"to have them too, no more than this have said so in time: {acknowledged}"
            )

    def _refused(self, parts: Sequence[Sequence[Outgoing]], answers: Sequence[Any]) -> NoReturn:
        """Raise that the server has refused some of these messages. ``answers``: one for each call
        of a script, in the order of `_pushes`."""
        groups: dict[tuple[int, Script, tuple[str, ...]], tuple[str, list[int]]] = {}
        place = itertools.count()
        for n, part in enumerate(parts):  # in the order of `_pushes`
            for message in part:
                script, where = self._door(message)
                found = groups.setdefault((n, script, where), (message.queue, []))
                found[1].append(next(place))
        failed = [
            (queue, places, answer)
            for (queue, places), answer in zip(groups.values(), answers, strict=True)
            if isinstance(answer, Exception)
        ]
        error = self._refusal([(queue, answer) for queue, _, answer in failed])
        error.unsent = frozenset(place for _, places, _ in failed for place in places)
        raise error

    def check_queues(self, queues: Collection[str]) -> None:
        written = [
            (queue, key)
            for queue in queues
            for key in (*self._keys(queue).lists, self._keys(queue).bell)
        ]
        answers = self._redis.try_calls([("LLEN", key) for _, key in written])
        refused = [
            (queue, answer)
            for (queue, _), answer in zip(written, answers, strict=True)
            # A user without the right to LLEN may well have that to push.
            if isinstance(answer, Exception) and "command" not in str(answer)
        ]
        if refused:
            raise self._refusal(refused) from refused[0][1]

    def briefly(self, *, insist: bool) -> contextlib.AbstractContextManager[None]:
        return self._redis.briefly(insist=insist)

    def passing_over(self) -> contextlib.AbstractContextManager[None]:
        return self._redis.passing_over()

    # ------------------------------------------------------------------ consumers

    def claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Claim:
        run = self._claim(queue, consumer, first, limit, lease)
        return _claimed(self._redis.run_all([run])[0], first)

    def wait(self, queues: Sequence[str], timeout: float) -> str | None:
        bells = {self._keys(queue).bell: queue for queue in queues}
        first, *others = self._redis.popped(list(bells), timeout) or [""]
        # On a Cluster, several may ring in the same moment: those are for other consumers.
        with contextlib.suppress(BrokerUnavailable):
            self._redis.run_all([(scripts.RING, (bell,), ()) for bell in others])
        return bells.get(first)

    def stirring(self, queues: Sequence[str], due: Collection[str] = ()) -> list[str]:
        def keys_of(queue: str) -> tuple[str, ...]:
            keys = self._keys(queue)
            if queue in due:
                return (keys.bell, keys.due, keys.fair, *keys.lists)
            return (keys.bell, keys.fair, *keys.lists)

        return self._where_any(queues, keys_of)

    def wait_and_claim(
        self, queue: str, consumer: str, first: int, limit: int, lease: float, timeout: float
    ) -> Claim:
        # Sent together, so that the message comes with the answer to the bell: a round trip less.
        run = self._claim(queue, consumer, first, limit, lease)
        answer = self._redis.block(timeout, "BLPOP", self._keys(queue).bell, 0, then=run)
        return _claimed(answer, first)

    def ring_for_foreign(self, queue: str, timeout: float) -> int:
        keys = self._keys(queue)
        first = keys.lists[0]
        ring: Run = (scripts.RING_FOR_FOREIGN, (keys.bell, keys.paused, *keys.lists), ())
        # Blocks until the list has an element, which it moves from its end to its end: it stays
        # where it is, whatever happens to this process.
        return int(
            self._redis.block(timeout, "BLMOVE", first, first, "RIGHT", "RIGHT", 0, then=ring)
        )

    def ack(
        self, queue: str, consumer: str, numbers: Sequence[int], ended: Sequence[str] = ()
    ) -> int:
        key = (self._keys(queue).inflight(consumer),)
        if self._apart and len(ended) > _TOLD:
            ended = self._waited(ended)
        runs: list[Run] = []
        for part in _cut(numbers):
            ranges = _ranges(part)
            runs.append((self._ack, key, (self._ended, len(ranges) // 2, *ranges)))
        runs += [(self._ack, key, (self._ended, 0, *part)) for part in _cut(ended)]
        return sum(self._redis.run_all(runs))

    def retry(
        self, queue: str, consumer: str, number: int, raw: bytes, priority: int, due: float
    ) -> bool:
        run = self._retry(queue, consumer, Later(number, raw, priority, due))
        return bool(self._redis.run_all([run])[0])

    def retry_all(self, queue: str, consumer: str, deliveries: Sequence[Later]) -> None:
        self._redis.run_all([self._retry(queue, consumer, later) for later in deliveries])

    def release(self, queue: str, consumer: str, deliveries: Sequence[Returned]) -> int:
        keys = self._keys(queue)
        # The newest first, so that the oldest ends up where the next claim takes from.
        newest_first = sorted(deliveries, key=lambda d: d.number, reverse=True)
        lists = self._lists
        args = [v for d in newest_first for v in (d.number, lists[d.priority], d.raw or b"")]
        where = (keys.inflight(consumer), keys.bell, keys.fair, *keys.lists)
        # In parts of a multiple of three: no triple is cut.
        runs: list[Run] = [(scripts.RELEASE, where, part) for part in _cut(args, 3 * 300)]
        return sum(self._redis.run_all(runs))

    def held(self, queue: str, consumer: str, numbers: Sequence[int]) -> set[int]:
        key = (self._keys(queue).inflight(consumer),)
        runs: list[Run] = [(scripts.HELD, key, part) for part in _cut(numbers)]
        answers = itertools.chain.from_iterable(self._redis.run_all(runs))
        return {number for number, held in zip(numbers, answers, strict=True) if held}

    def numbers_held(self, queues: Sequence[str], consumer: str) -> dict[str, set[int]]:
        if not queues:
            return {}
        asked = [("HKEYS", self._keys(queue).inflight(consumer)) for queue in queues]
        found: dict[str, set[int]] = {}
        for queue, answer in zip(queues, self._redis.try_calls(asked), strict=True):
            if isinstance(answer, Exception):
                refusal = self._redis.translated(answer)
                if not isinstance(refusal, QueueRefused):
                    raise refusal from answer
            else:
                found[queue] = {int(number) for number in answer}
        return found

    def taken(self, queue: str, consumer: str) -> bool:
        return bool(self._redis.call("EXISTS", self._keys(queue).taken(consumer)))

    def hold_again(
        self,
        queue: str,
        consumer: str,
        deliveries: Mapping[int, bytes],
        following: int,
        lease: float,
    ) -> int:
        keys = self._keys(queue)
        mine = (keys.inflight(consumer), keys.taken(consumer), keys.consumers)
        where = (*mine, keys.claimed(consumer))
        runs: list[Run] = []
        for part in _cut(list(deliveries.items()), _PAGE):
            held = itertools.chain.from_iterable(part)
            runs.append((scripts.HOLD_AGAIN, where, (consumer, _ms(lease), following, *held)))
        return sum(self._redis.run_all(runs))

    def revoked(self, queue: str, ids: Sequence[str]) -> list[Revocation]:
        key = (self._keys(queue).revoked,)
        runs: list[Run] = [(scripts.REVOKED, key, part) for part in _cut(ids)]
        return [Revocation(said) for answer in self._redis.run_all(runs) for said in answer]

    def note(self, queue: str, notes: Sequence[Note], seconds: float) -> None:
        keys, kept = self._keys(queue), int(seconds * 1000)
        runs: list[Run] = []
        for task_id, about, value in notes:
            channel = self._channel(progress_topic(task_id)) if about is About.PROGRESS else ""
            runs.append((scripts.NOTE, (keys.note(about, task_id),), (kept, value, channel)))
        self._redis.run_all(runs)

    def noted(self, queue: str, task_id: str, about: About) -> bytes | None:
        found: bytes | None = self._redis.call("GET", self._keys(queue).note(about, task_id))
        return found

    def noted_of(self, queue: str, task_ids: Sequence[str], about: About) -> list[bytes | None]:
        if not task_ids:
            return []
        keys = self._keys(queue)
        found: list[bytes | None] = self._redis.call(
            "MGET", *(keys.note(about, task_id) for task_id in task_ids)
        )
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

    def retain(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        keys = self._keys(queue)
        runs: list[Run] = []
        for part in _cut(consumers):
            inflight = [keys.inflight(consumer) for consumer in part]
            runs.append((scripts.RETAIN, (keys.consumers, *inflight), (_ms(lease), *part)))
        self._redis.run_all(runs)

    def attended(self, queues: Sequence[str]) -> list[str]:
        def keys_of(queue: str) -> tuple[str, ...]:
            keys = self._keys(queue)
            return (keys.consumers, keys.reported)

        return self._where_any(queues, keys_of)

    def expired(self, queue: str) -> list[str]:
        key = self._keys(queue).consumers
        (now,) = self._redis.clocks([key])
        found = self._redis.call("ZRANGEBYSCORE", key, "-inf", f"({now}", "LIMIT", 0, 100)
        return [name.decode() for name in found]

    def reclaim(self, queue: str, consumer: str, edit: Callable[[int, bytes], Returned]) -> int:
        keys = self._keys(queue)
        # First: from now on the consumer must not act on what it held.
        self._redis.run(scripts.TAKEN, (keys.taken(consumer),), int(TAKEN_KEPT * 1000))
        given_back = 0
        for page in self._pages("HSCAN", keys.inflight(consumer)):
            held = [edit(int(number), raw) for number, raw in _pairs(page)]
            given_back += self.release(queue, consumer, held)
        self.leave(queue, consumer)
        return given_back

    def doubtful(self, queues: Sequence[str]) -> list[str]:
        runs: list[Run] = [
            (scripts.DOUBTFUL, (self._keys(queue).compared,), ()) for queue in queues
        ]
        found = []
        for queue, answer in zip(queues, self._redis.try_all(runs) if runs else [], strict=True):
            if isinstance(answer, Exception):
                refusal = self._redis.translated(answer)
                # Of a Cluster, some nodes may be away.
                if not (self._apart or isinstance(refusal, QueueRefused)):
                    raise refusal from answer
            elif answer:
                found.append(queue)
        return found

    def compare(self, queue: str, who: str, step: Compare) -> bool:
        kept = _ms(COMPARED if step is Compare.END else COMPARING)
        where = (self._keys(queue).compared,)
        return bool(self._redis.run(scripts.COMPARE, where, who, step.value, kept))

    # ------------------------------------------------------------------ notifications

    @contextlib.contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        channels = [self._channel(topic) for topic in topics]
        own = self._redis.subscribe(channels)
        try:
            yield RedisSubscription(own, self._redis.address, self._channel(""))
        finally:
            own.disconnect()

    @contextlib.contextmanager
    def listen(self, task_id: str) -> Iterator[Subscription]:
        with self._redis.listen(self._channel(ended_topic(task_id))) as own:
            yield RedisSubscription(own, self._redis.address, self._channel(""))

    def notify(self, topic: str) -> None:
        self._redis.call("PUBLISH", self._channel(topic), 1)

    def celery(self) -> CeleryChannels:
        if isinstance(self._redis, Cluster):
            return super().celery()
        return RedisCeleryChannels(self._redis, self._prefix)

    def celery_ends(self) -> CeleryEnds:
        if isinstance(self._redis, Cluster):
            return super().celery_ends()
        return RedisCeleryEnds(self._redis)

    def chord_size(self, group_id: str) -> int | None:
        key = f"celery-taskset-meta-{group_id}.s"
        size: bytes | None = self._permitted(lambda: self._redis.call("GET", key))
        return int(size) or None if size is not None and size.isdigit() else None

    def chord_results(self, group_id: str) -> bytes | None:
        key = f"celery-taskset-meta-{group_id}"
        found: bytes | None = self._permitted(lambda: self._redis.call("GET", key))
        return found

    def store_celery_results(self, results: Sequence[CeleryResult], seconds: float | None) -> None:
        kept = _kept(seconds)
        runs: list[Run] = [
            (
                scripts.STORE_CELERY_RESULT,
                (f"celery-task-meta-{one.task_id}",),
                (one.text, kept, int(one.ended)),
            )
            for one in results
        ]
        self._redis.run_all(runs)

    def store_celery_parts(
        self, group_id: str, parts: Sequence[tuple[int, str]], seconds: float | None
    ) -> None:
        key, kept = f"celery-taskset-meta-{group_id}.j", _kept(seconds)
        runs: list[Run] = [
            (scripts.STORE_CELERY_PARTS, (key,), (kept, *itertools.chain(*some)))
            for some in _cut(parts)
        ]
        self._redis.run_all(runs)

    def keeping(self) -> Keeping:
        names = ("maxmemory-policy", "appendonly", "save")
        asked = [("CONFIG", "GET", name) for name in names]
        told = self._permitted(lambda: self._redis.everywhere(*asked))
        sections = (
            ("INFO", "memory"),
            ("INFO", "persistence"),
            ("INFO", "cluster"),
            ("INFO", "replication"),
        )
        infos = self._permitted(lambda: self._redis.everywhere(*sections))
        infos = infos or [[] for _ in told or [None]]
        if not self._apart and any(b"cluster_enabled:1" in part for part in infos[0]):
            # A single call may well be answered there; the next one would not.
            raise BrokerUnavailable(f"Redis at {self.address} can't be used: {IN_CLUSTER}")
        servers = [
            _keeping(config, info)
            for config, info in zip(told or [None] * len(infos), infos, strict=True)
        ]
        # The first that differs from how it should be stands for all of them.
        policies = [one.eviction for one in servers]
        on_disk = {one.on_disk for one in servers}
        fullest = max(servers, key=lambda one: (one.used / one.limit if one.limit else 0, one.used))
        return Keeping(
            next((said for said in policies if said not in ("", "noeviction")), policies[0]),
            False if False in on_disk else None if None in on_disk else True,
            fullest.used,
            fullest.limit,
            any(one.failing for one in servers),
            any(one.read_only for one in servers),
        )

    def ping(self) -> None:
        self._redis.everywhere(("PING",))

    def close(self) -> None:
        self._redis.close()

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
        return self.dead_letters_of({queue: before}, count)[queue]

    def dead_letters_of(
        self, before: Mapping[str, str | None], count: int
    ) -> dict[str, list[DeadLetter]]:
        letters: dict[str, list[DeadLetter]] = {queue: [] for queue in before}
        asked = {q: key for q, key in before.items() if key is None or _ENTRY.fullmatch(key)}
        answers = self._redis.calls(
            [
                (*("XREVRANGE", self._keys(q).dead), f"({key}" if key else "+", "-", "COUNT", count)
                for q, key in asked.items()
            ]
        )
        for queue, found in zip(asked, answers, strict=True):
            letters[queue] = [_dead_letter(key.decode(), fields) for key, fields in found]
        return letters

    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        if not _ENTRY.fullmatch(key):
            return None
        found = self._redis.call("XRANGE", self._keys(queue).dead, key, key)
        return _dead_letter(found[0][0].decode(), found[0][1]) if found else None

    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        keys = self._keys(queue)
        where = (keys.dead, *keys.push_fair[priority][:3])
        if not _ENTRY.fullmatch(key):
            return False
        wanted = (key, raw or b"", self._lists[priority])
        return bool(self._redis.run(scripts.REQUEUE, where, *wanted))

    def discard(self, queue: str, key: str) -> bool:
        if not _ENTRY.fullmatch(key):
            return False
        return bool(self._redis.call("XDEL", self._keys(queue).dead, key))

    # ------------------------------------------------------------------ operators

    def pause(self, queue: str, pause: Pause) -> None:
        said = json.dumps({"by": pause.by, "why": pause.why, "at": pause.at.isoformat()})
        self._redis.call("HSET", self._keys(queue).paused, pause.task, said)

    def resume(self, queue: str, task: str = "") -> bool:
        keys, was = self._keys(queue), False
        where = (keys.paused, keys.due, keys.bell, keys.fair, *keys.lists)
        while True:
            paused, released = self._redis.run(scripts.RESUME, where, task, _PARKED_MS, _PAGE)
            was |= bool(paused)
            if released < _PAGE:
                return was

    def paused(self, queue: str) -> list[Pause]:
        return self.paused_of([queue])[0]

    def paused_of(self, queues: Sequence[str]) -> list[list[Pause]]:
        asked = [("HGETALL", self._keys(queue).paused) for queue in queues]
        answers = self._redis.try_calls(asked)
        return [
            _pauses(self._intact("hash", answer, key))
            for (_, key), answer in zip(asked, answers, strict=True)
        ]

    def park(self, queue: str, consumer: str, deliveries: Sequence[Parking]) -> set[int]:
        keys = self._keys(queue)
        where = (keys.inflight(consumer), keys.due, keys.paused)
        runs: list[Run] = [
            (scripts.PARK, where, (_PARKED_MS, *itertools.chain.from_iterable(part)))
            for part in _cut(deliveries, _PAGE)
        ]
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
        where = (keys.inflight(consumer), keys.consumers, keys.fair, *keys.lists)
        wanted = (consumer, int(lease * 1000), first, min(limit, _PAGE))
        answer = self._redis.run(scripts.TAKE, where, *wanted)
        return [Waiting(raw, self._steps[step]) for raw, step in _pairs(answer)]

    def pick(self, queue: str, consumer: str, number: int, lease: float, message: Waiting) -> bool:
        keys = self._keys(queue)
        place = self._lists[message.priority]
        where = (keys.inflight(consumer), keys.consumers, keys.fair, keys.lists[place])
        wanted = (consumer, int(lease * 1000), number, message.raw, place)
        return bool(self._redis.run(scripts.PICK, where, *wanted))

    def withdraw(self, queue: str, messages: Sequence[Waiting]) -> int:
        members = [_member(priority, raw) for raw, priority, _due in messages]
        return int(self._redis.call("ZREM", self._keys(queue).due, *members)) if members else 0

    def stats(self, queue: str) -> Stats:
        return _stats(*_counted(self._redis.run_all([self._count(queue)])[0]))

    def consumers(self, queue: str) -> list[Consumer]:
        return _counted(self._redis.run_all([self._count(queue)])[0])[1]

    def scan(self, queue: str) -> Iterator[bytes]:
        keys = self._keys(queue)
        # In the order in which messages move, so that one that moves meanwhile isn't missed.
        for members in self._pages("ZSCAN", keys.due):
            yield from (form.partition(b"|")[2] for form in members[::2])
        for place in range(len(keys.lists)):
            for waiting in self._waiting_at(queue, place):
                # From the end where producers push: what they push meanwhile shifts the rest into
                # the pages that follow.
                for start in itertools.count(0, _PAGE):
                    page = self._redis.call("LRANGE", waiting, start, start + _PAGE - 1)
                    yield from page
                    if not page:
                        break
        for consumers in self._pages("ZSCAN", keys.consumers):
            for consumer in consumers[::2]:
                for held in self._pages("HSCAN", keys.inflight(consumer.decode())):
                    yield from held[1::2]
        oldest = None
        while letters := self.dead_letters(queue, _PAGE, oldest):
            yield from (letter.raw for letter in letters)
            oldest = letters[-1].key

    def browse(self, queue: str, *, due: bool) -> Iterator[Waiting]:
        keys = self._keys(queue)
        if due:
            for start in itertools.count(0, _PAGE):
                page = self._redis.call("ZRANGE", keys.due, start, start + _PAGE - 1, "WITHSCORES")
                yield from _due(page)
                if not page:
                    return
        for place, step in enumerate(self._steps):
            for key in self._waiting_at(queue, place):
                for end in itertools.count(1, _PAGE):
                    page = self._redis.call("LRANGE", key, -end - _PAGE + 1, -end)
                    yield from (Waiting(raw, step) for raw in reversed(page))
                    if len(page) < _PAGE:
                        break

    def peek(self, queue: str, start: int, count: int) -> list[Waiting]:
        keys = self._keys(queue)
        answer = self._redis.run(scripts.PEEK, (keys.fair, *keys.lists), start, count)
        return [Waiting(raw, self._steps[step]) for raw, step in _pairs(answer)]

    def peek_due(self, queue: str, count: int, since: float = 0.0, skip: int = 0) -> list[Waiting]:
        wanted = (_ms(since), skip, count)
        return _due(self._redis.run(scripts.PEEK_DUE, (self._keys(queue).due,), *wanted))

    def peek_in_flight(self, queue: str, start: int, count: int) -> list[InFlight]:
        keys = self._keys(queue)
        wanted = (keys.inflight(""), start, count)
        answer = self._redis.run(scripts.PEEK_IN_FLIGHT, (keys.consumers,), *wanted)
        rows = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return [InFlight(_text(name), _number(number), raw) for name, number, raw in rows]

    def revocations(self, queue: str, count: int) -> list[Revoked]:
        key = self._keys(queue).revoked
        (now,) = self._redis.clocks([key])
        page = self._redis.call(
            *("ZREVRANGEBYSCORE", key, "+inf", f"({now}", "WITHSCORES", "LIMIT", 0, 2 * count)
        )
        until = {_text(name): float(ends) / 1000 for name, ends in _pairs(page)}
        found = [
            Revoked(name, f"t:{name}" in until, ends)
            for name, ends in until.items()
            if not name.startswith("t:")
        ]
        return found[:count]

    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        keys = self._keys(queue)
        where = (keys.workers, keys.reported)
        said = () if text is None else (text, _REPORTED)
        self._redis.run(scripts.REPORT, where, worker, *said)

    def reports(self, queue: str) -> Mapping[str, bytes]:
        return self.reports_of([queue])[0]

    def reports_of(self, queues: Sequence[str]) -> list[Mapping[str, bytes]]:
        answers = self._each([("HGETALL", self._keys(q).workers) for q in queues])
        return [{_text(name): text for name, text in _pairs(flat)} for flat in answers]

    def survey(self, queues: Sequence[str]) -> list[Survey]:
        runs: list[Run] = []
        for queue in queues:
            keys = self._keys(queue)
            runs.append(self._count(queue))
            shown = (keys.paused, keys.workers, keys.fair, *keys.lists)
            runs.append((scripts.LOOK, shown, (READABLE,)))
        answers = self._redis.try_parts((runs,)) if runs else []
        found = []
        for counted, looked in zip(answers[::2], answers[1::2], strict=True):
            if wrong := [one for one in (counted, looked) if isinstance(one, Exception)]:
                refusal = self._redis.translated(wrong[0])
                if not isinstance(refusal, QueueRefused):
                    raise refusal from wrong[0]
                found.append(Survey(Stats(0, 0, 0, 0, 0), [], [], {}, [], str(refusal)))
                continue
            *hashes, next_ones = looked
            paused, reports = [self._intact("hash", answer) for answer in hashes]
            counts, consumers = _counted(counted)
            found.append(
                Survey(
                    _stats(counts, consumers),
                    consumers,
                    _pauses(paused),
                    {_text(name): text for name, text in _pairs(reports)},
                    next_ones,
                )
            )
        return found

    def damaged(self) -> list[str]:
        known = self._damage.known()
        if not known:
            return []  # without a round trip: the usual case
        kinds = self._redis.try_calls([("TYPE", key) for key, _ in known])
        for (key, kind), now in zip(known, kinds, strict=True):
            if now in (kind.encode(), b"none"):
                self._damage.forget(key)
        return [key for key, _ in self._damage.known()]

    def held_by(self, deliveries: Sequence[tuple[str, str, Sequence[int]]]) -> list[bytes | None]:
        asked: list[tuple[bytes | str | int | float, ...]] = [
            ("HMGET", self._keys(queue).inflight(consumer), *numbers)
            for queue, consumer, numbers in deliveries
            if numbers
        ]
        counts = [len(numbers) for _queue, _consumer, numbers in deliveries if numbers]
        answers = self._each(asked) if asked else []
        return [raw for n, raws in zip(counts, answers, strict=True) for raw in raws or [None] * n]

    def remember_queues(self, queues: Collection[str]) -> None:
        now = time.monotonic()
        news = [queue for queue in queues if self._remember_at.get(queue, 0.0) <= now]
        if not news:
            return
        for part in _cut(news):
            self._redis.run(scripts.REMEMBER, (self._known(),), QUEUES_KNOWN, *part)
        if len(self._remember_at) > QUEUES_KNOWN:
            self._remember_at.clear()
        self._remember_at.update(dict.fromkeys(news, now + KNOWN_AGAIN))

    def remembered_queues(self, count: int) -> list[str]:
        (answer,) = self._redis.try_calls([("ZREVRANGE", self._known(), 0, count - 1)])
        return [_text(name) for name in self._intact("zset", answer, self._known())]

    def remember_shards(self, counts: Mapping[str, int]) -> None:
        said = [f"{count}:{queue}" for queue, count in counts.items()]
        for part in _cut(said):
            self._redis.run(scripts.REMEMBER, (self._known_shards(),), SHARDS_KNOWN, *part)

    def remembered_shards(self) -> Mapping[str, int]:
        key = self._known_shards()
        (answer,) = self._redis.try_calls([("ZRANGE", key, 0, -1)])
        counts: dict[str, int] = {}
        for member in self._intact("zset", answer, key):
            count, _colon, queue = _text(member).partition(":")
            # Anybody who reaches the server can have written more.
            number = min(_number(count.encode()), SHARDS_MOST)
            if number > counts.get(queue, 1):
                counts[queue] = number
        return counts

    def forget_shards(self, queue: str, above: int, seconds: float) -> bool:
        said = [f"{count}:{queue}" for count in range(above + 1, SHARDS_MOST + 1)]
        key = (self._known_shards(),)
        return bool(self._redis.run(scripts.FORGET_SHARDS, key, _ms(seconds), *said))

    def listeners(self, topic: str) -> int | None:
        asked = ("PUBSUB", "NUMSUB", self._channel(topic))
        servers = self._permitted(lambda: self._redis.everywhere(asked))
        return None if servers is None else sum(int(answer[1]) for (answer,) in servers)

    def report_ages(self, queue: str, most: int = 0) -> Mapping[str, float]:
        return self._report_ages([queue], most)[0]

    def report_ages_of(self, queues: Sequence[str]) -> list[Mapping[str, float]]:
        return self._report_ages(queues, 0)

    def _report_ages(self, queues: Sequence[str], most: int) -> list[Mapping[str, float]]:
        asked: list[tuple[str | int, ...]] = [
            ("ZRANGE", self._keys(queue).reported, 0, most - 1, "WITHSCORES") for queue in queues
        ]
        answers, clocks = self._redis.try_timed(asked) if asked else ([], [])
        return [
            {_text(name): max(0.0, now - float(at)) / 1000 for name, at in _pairs(flat)}
            for flat, now in zip(self._each(asked, answers), clocks, strict=True)
        ]

    def note_gone(self, queue: str, text: bytes, worker: str = "") -> bool:
        keys = self._keys(queue)
        where = (keys.gone, keys.workers, keys.reported)
        wanted = (text, worker, GONE_MOST, int(GONE_KEPT))
        return bool(self._redis.run(scripts.NOTE_GONE, where, *wanted))

    def gone_of(self, queues: Sequence[str]) -> list[list[bytes]]:
        return self._each([("LRANGE", self._keys(q).gone, 0, -1) for q in queues])

    def command(self, queue: str, worker: str, text: bytes, seconds: float) -> None:
        where = (self._keys(queue).commands(worker),)
        self._redis.run(scripts.COMMAND, where, text, COMMANDS_MOST, int(seconds * 1000))

    def take_commands(self, queue: str, worker: str) -> list[bytes]:
        where = (self._keys(queue).commands(worker),)
        found: list[bytes] = self._redis.run(scripts.TAKE_COMMANDS, where)
        return found

    def answer(self, queue: str, command_id: str, text: bytes, seconds: float) -> None:
        key = self._keys(queue).answer(command_id)
        self._redis.call("SET", key, text, "PX", int(seconds * 1000))

    def answered(self, queue: str, command_id: str) -> bytes | None:
        found: bytes | None = self._redis.call("GET", self._keys(queue).answer(command_id))
        return found

    # ------------------------------------------------------------------ limits

    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        runs: list[Run] = []
        for limit, rate, before, within, unused in wishes:
            interval, longest = rate.interval * 1e6, -1 if within is None else round(within * 1e6)
            times = (round(at * 1e6) for at in before)
            key = (f"{self._limit(limit)}:rate",)
            runs.append((scripts.PERMITS, key, (interval, rate.burst, longest, unused, *times)))
        return [
            [Permit(max(0, at - now) / 1e6, at / 1e6) if at else Permit(0.0) for at in answers]
            for now, *answers in self._redis.run_all(runs)
        ]

    def set_override(self, name: str, text: bytes | None) -> bool:
        key = f"{self._prefix}{{limits}}:rates"
        if text is None:
            return bool(self._redis.call("HDEL", key, name))
        return not self._redis.call("HSET", key, name, text)

    def overrides(self) -> Mapping[str, bytes]:
        flat = self._redis.call("HGETALL", f"{self._prefix}{{limits}}:rates")
        return {_text(name): text for name, text in _pairs(flat)}

    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        asked = [_ms(value) for value in (SLOT, ASK_AGAIN, ASK_AGAIN_EACH, ASK_AGAIN_MOST)]
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
            args: list[int | str] = [_ms(SLOT), *(slots[n].holder for n in places)]
            runs.append((scripts.KEEP, self._slots(limit)[:1], args))
        self._redis.run_all(runs)

    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, most), places in _by_limit(slots):
            args: list[int | str] = [most, _ms(HANDED)]
            for n in places:
                args += (_ms(slots[n].due), slots[n].queue, slots[n].holder)
            runs.append((scripts.WAIT, self._slots(limit), args))
        self._wake(self._redis.run_all(runs))

    def free_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, most), places in _by_limit(slots):
            args: list[int | str] = [most, _ms(HANDED), *(slots[n].holder for n in places)]
            runs.append((scripts.FREE, self._slots(limit), args))
        self._wake(self._redis.run_all(runs))

    def slots_in_use(self, limits: Sequence[str]) -> list[int]:
        keys = [self._slots(limit)[0] for limit in limits]
        clocks = self._redis.clocks(keys) if keys else []
        return self._redis.calls(
            [("ZCOUNT", key, f"({now}", "+inf") for key, now in zip(keys, clocks, strict=True)]
        )

    def lock(self, locks: Sequence[Lock]) -> list[str]:
        runs: list[Run] = [
            (
                scripts.LOCK,
                (self._lock(lock.name),),
                (lock.task_id, max(1, _ms(lock.seconds)), lock.take.value),
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

    # ------------------------------------------------------------------ numbers

    def count(self, queue: str, counts: Counts, tasks: Mapping[str, Counts]) -> None:
        args: list[str | bytes | int] = [TASKS]
        for name, fields in (("", counts), *tasks.items()):
            args += (name.encode("utf-8", "backslashreplace"), len(fields))
            for field, number in fields.items():
                args += (field, number)
        key = self._keys(queue).metrics
        # The second key makes a Cluster wait with this while it moves the queue to another node:
        # it would let a script with one key go on there, with numbers that begin anew.
        self._redis.run_all([(scripts.COUNT, (key, f"{key}sent"), args)])

    def counts(self, spans: Sequence[Span]) -> list[Found]:
        found: dict[Span, Found] = {}
        for part, (first, *answers) in self._spans(spans, scripts.COUNTS, (), ""):
            unmoved = self._intact("hash", first)
            # Minutes of the queue in which messages were sent that no span has yet.
            sent = [(_number(minute) * 60, _number(number)) for minute, number in _pairs(unmoved)]
            for span, said in zip(part, answers, strict=True):
                fields = self._intact("hash", said)
                names = map(_NAMES.__getitem__, fields[::2])
                counts = dict(zip(names, _counts(fields), strict=True))
                own = [n for at, n in sent if at // SECONDS[span.resolution] == span.number]
                if own:
                    counts[SENT] = counts.get(SENT, 0) + sum(own)
                found[span] = Found(counts, not own and not isinstance(said, bytes))
        return [found[span] for span in spans]

    def task_counts(
        self, spans: Sequence[Span], fields: Sequence[str] = ()
    ) -> list[Mapping[str, Counts]]:
        script = scripts.TASK_COUNTS if fields else scripts.COUNTS
        before: list[str | int] = [len(fields), *fields] if fields else []
        found: dict[Span, Mapping[str, Counts]] = {}
        for part, answers in self._spans(spans, script, before, ":tasks"):
            for span, answer in zip(part, answers if fields else answers[1:], strict=True):
                said = self._intact("hash", answer)
                names = {b"0": OTHER}
                for field, number in _pairs(said):
                    if field[:1] == b"=":
                        names[number] = _text(field[1:])
                by_number: dict[bytes, dict[str, int]] = {number: {} for number in names}
                for field, count in zip(said[::2], _counts(said), strict=True):
                    number, colon, kind = field.partition(b":")
                    if colon and number in by_number:
                        by_number[number][_NAMES[kind]] = count
                found[span] = {names[n]: counts for n, counts in by_number.items() if counts}
        return [found[span] for span in spans]

    def _spans(
        self, spans: Sequence[Span], script: Script, before: Sequence[str | int], ending: str
    ) -> Iterator[tuple[Sequence[Span], list[Any]]]:
        """What a script answers about parts of these spans, each of one queue. ``before``: its
        arguments before the spans."""
        by_queue: dict[str, list[Span]] = {}
        for span in spans:
            by_queue.setdefault(span.queue, []).append(span)
        parts = [part for some in by_queue.values() for part in _cut(some, _SPANS)]
        runs: list[Run] = [
            (
                script,
                (self._keys(part[0].queue).metrics,),
                [*before, *(f"{resolution}:{number}{ending}" for _, resolution, number in part)],
            )
            for part in parts
        ]
        yield from zip(parts, self._redis.run_all(runs), strict=True)

    # ------------------------------------------------------------------ steps

    def _pushes(self, messages: Sequence[Outgoing]) -> list[Run]:
        groups: dict[tuple[Script, tuple[str, ...]], list[Any]] = {}
        #: Queue and priority → the group of what has nothing but these.
        lists: dict[tuple[str, int], list[Any]] = {}
        for message in messages:
            queue, raw, priority, due, fair, once = message
            if due is None and fair is False and not once:  # most bulks have no others
                if (args := lists.get((queue, priority))) is None:
                    args = lists[queue, priority] = groups.setdefault(self._door(message), [])
                args.append(raw)
                continue
            door = self._door(message)
            if (args := groups.get(door)) is None:
                args = groups[door] = (
                    [self._lists[priority]] if door[0] is scripts.PUSH_FAIR else []
                )
            if once or due is None:
                args.append(raw)
            else:
                args += (_due_ms(due), _member(priority, raw))
        return [(script, keys, args) for (script, keys), args in groups.items()]

    def _door(self, message: Outgoing) -> tuple[Script, tuple[str, ...]]:
        """The script by which a message gets on its queue, and the keys of that."""
        queue, raw, priority, due, fair, once = message
        keys = self._keys(queue)
        if once:
            return scripts.PUSH_ONCE, keys.push_once(priority, once)
        if due is not None:
            return scripts.SCHEDULE, keys.schedule
        if MARK in raw if fair is None else fair:
            return scripts.PUSH_FAIR, keys.push_fair[priority]
        return scripts.PUSH, keys.push[priority]

    def _waiting_at(self, queue: str, place: int) -> list[str | bytes]:
        """The keys of what waits at a priority step: its list, and those of its tenants. A tenant
        that is there all the time is not missed, whoever takes turns meanwhile."""
        keys = self._keys(queue)
        pages = self._pages("ZSCAN", keys.turns(place))
        tenants = dict.fromkeys(name for page in pages for name in page[::2] if name)
        return [keys.lists[place], *(keys.of_tenant(place, name) for name in tenants)]

    def _refusal(self, answers: Iterable[tuple[str, Exception]]) -> BrokerUnavailable:
        """The error for the server's answers about these queues: that it refuses them, unless one
        of the answers is a passing trouble of the server."""
        refused: dict[str, Exception] = {}
        for queue, answer in answers:
            error = self._redis.translated(answer)
            if isinstance(error, BrokerUnavailable) and not isinstance(error, QueueRefused):
                return error
            refused.setdefault(queue, error)
        said = "; ".join(f"{queue!r}: {error}" for queue, error in refused.items())
        return QueueRefused(
            f"Redis at {self.address} takes no messages for the queue {said}",
            queues=list(refused),
        )

    def _waited(self, ended: Sequence[str]) -> Sequence[str]:
        """Those of these tasks that somebody may wait for, on any node of a Cluster."""
        topics = [self._ended + task_id for task_id in ended]
        asked = (("PUBSUB", "NUMPAT"), ("PUBSUB", "NUMSUB", *topics))
        try:
            nodes = self._permitted(lambda: self._redis.everywhere(*asked))
        except BrokerUnavailable:
            return ended  # the queue's own node may be there all the same
        if nodes is None or any(patterns for patterns, _ in nodes):
            return ended
        waited: set[bytes] = set()
        for _, found in nodes:
            if any(found[1::2]):  # hardly ever
                waited.update(name for name, count in _pairs(found) if count)
        if not waited:
            return []
        return [one for one, name in zip(ended, topics, strict=True) if name.encode() in waited]

    def _claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Run:
        keys = self._keys(queue)
        mine = (keys.inflight(consumer), keys.consumers, keys.revoked, keys.claimed(consumer))
        where = (*mine, keys.paused, keys.due, keys.bell, keys.fair, *keys.lists)
        args = (consumer, int(lease * 1000), first, min(limit, CLAIM_MOST), self._digits)
        return scripts.CLAIM, where, args

    def _retry(self, queue: str, consumer: str, later: Later) -> Run:
        keys = self._keys(queue)
        form = _member(later.priority, later.raw)
        where = (keys.inflight(consumer), keys.due, keys.bell)
        return scripts.RETRY, where, (later.number, _due_ms(later.due), form)

    def _where_any(
        self, queues: Sequence[str], keys_of: Callable[[str], tuple[str, ...]]
    ) -> list[str]:
        """Those of these queues of which the server has any of these keys, in the given order.

        Many queues are asked for in one command, and only where it finds a key in parts of it, so
        that it costs little when few have any.
        """
        whole = len(queues) > _ASIDE and not self._apart
        parts = [list(queues)] if whole else [[queue] for queue in queues]
        found: list[str] = []
        while parts:
            commands = [
                ("EXISTS", *(k for queue in part for k in keys_of(queue))) for part in parts
            ]
            answers = self._redis.try_calls(commands)
            # An error counts as well: whoever then asks that queue alone is told which it is.
            some = [part for part, answer in zip(parts, answers, strict=True) if answer != 0]
            found += [part[0] for part in some if len(part) == 1]
            parts = [
                piece
                for part in some
                if len(part) > 1
                for piece in map(list, _cut(part, max(1, len(part) // _ASIDE)))
            ]
        if len(found) < 2:
            return found
        there = set(found)
        return [queue for queue in queues if queue in there]

    def _pages(self, command: str, key: str) -> Iterator[list[bytes]]:
        """The pages that a scanning command returns, from cursor to cursor."""
        cursor: Any = 0
        while True:
            cursor, page = self._redis.call(command, key, cursor, "COUNT", _PAGE)
            yield page
            if int(cursor) == 0:
                return

    def _count(self, queue: str) -> Run:
        keys = self._keys(queue)
        head = (keys.consumers, keys.due, keys.dead, keys.fair, *keys.lists)
        return scripts.STATS, head, (keys.inflight(""),)

    def _known(self) -> str:
        return f"{self._prefix}{{queues}}:known"

    def _known_shards(self) -> str:
        return f"{self._prefix}{{queues}}:shards"

    @staticmethod
    def _permitted(ask: Callable[[], Any]) -> Any:
        """The answer; None if our user may not ask this, or the server doesn't know how to."""
        try:
            return ask()
        except ResponseError:
            return None
        except BrokerUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, NoPermissionError) or str(cause).startswith("unknown command"):
                return None
            raise

    def _each(self, commands: Sequence[Command], answers: Sequence[Any] | None = None) -> list[Any]:
        """The answers to commands about one queue each, in one round trip; an empty one from a
        queue that the server refuses. ``answers``: if it has answered already."""
        found = []
        if answers is None:
            answers = self._redis.try_calls(commands)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, Exception):
                refusal = self._redis.translated(answer)
                if not isinstance(refusal, QueueRefused):
                    raise refusal from answer
                if "WRONGTYPE" in str(answer):
                    self._damage.note(str(command[1]), _TYPES[command[0]])
                answer = []
            found.append(answer)
        return found

    def _intact(self, kind: str, answer: Any, key: str = "") -> Any:
        """What was read of a key of this type; nothing, and it is noted, if the key has another
        one. Then the answer is an error or, by a script, the key's name."""
        if isinstance(answer, Exception):
            if "WRONGTYPE" not in str(answer):
                raise self._redis.translated(answer) from answer
            answer = key.encode()
        if not isinstance(answer, bytes):
            return answer
        self._damage.note(_text(answer), kind)
        return []

    def _channel(self, topic: str) -> str:
        return f"{self._prefix}jobs:{topic}"

    def _wake(self, answers: Sequence[Sequence[bytes]]) -> None:
        """Make the messages due for which a slot is now reserved."""
        due: defaultdict[str, list[int]] = defaultdict(list)
        for flat in answers:
            for waiter, at in _pairs(flat):
                due[waiter.partition(b"\x06")[0].decode()].append(int(float(at)))
        self._redis.run_all(
            [(scripts.WAKE, self._keys(queue).schedule, times) for queue, times in due.items()]
        )

    def _limit(self, name: str) -> str:
        return f"{self._prefix}{{limit:{name}}}"

    def _slots(self, name: str) -> tuple[str, str]:
        limit = self._limit(name)
        return f"{limit}:held", f"{limit}:waiting"

    def _lock(self, name: str) -> str:
        return f"{self._prefix}{{unique:{name}}}"


def _kept(seconds: float | None) -> int:
    """Whole seconds that Celery's keys are kept; 0: for ever."""
    return 0 if seconds is None else max(1, round(seconds))


def _keeping(config: list[Any] | None, info: list[Any]) -> Keeping:
    """``config``, ``info``: one server's answers about its settings and its state."""
    texts = (line for part in info for line in part.decode().splitlines())
    lines = dict(line.partition(":")[::2] for line in texts)
    policy, on_disk = lines.get("maxmemory_policy", ""), None
    if config is not None:
        told = {pair[0].decode(): pair[1].decode() for pair in config if pair}
        policy = told.get("maxmemory-policy", "")
        on_disk = told["appendonly"] == "yes" or bool(told["save"]) if len(told) == 3 else None
    written = (lines.get("rdb_last_bgsave_status"), lines.get("aof_last_write_status"))
    used, limit = int(lines.get("used_memory", 0)), int(lines.get("maxmemory", 0))
    read_only = lines.get("role") == "slave" and lines.get("slave_read_only") == "1"
    return Keeping(policy, on_disk, used, limit, "err" in written, read_only)


def _dead_letter(key: str, flat: list[bytes]) -> DeadLetter:
    fields = dict(_pairs(flat))
    ms = min(int(key.partition("-")[0]), _LAST_MS)
    at = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    raw, reason, worker = (fields.get(name, b"") for name in (b"message", b"reason", b"worker"))
    return DeadLetter(key, raw, _text(reason), at, _text(worker))


def _claimed(answer: list[Any], first: int) -> Claim:
    next_due, revocations, paused, *raws = answer
    if revocations < 0:
        return Claim([], None, resume=-revocations)
    if paused < 0:
        return Claim([], None, paused=True)
    due = None if next_due < 0 else next_due / 1000
    return Claim(list(enumerate(raws, first)), due, revocations > 0, None, paused > 0)


def _counted(answer: list[Any]) -> tuple[list[int], list[Consumer]]:
    """Waiting, due and dead of a queue, and its consumers."""
    now = answer[3]
    rows = zip(answer[4::3], answer[5::3], answer[6::3], strict=True)
    return answer[:3], [
        Consumer(_text(name), (float(ends) - now) / 1000, held) for name, ends, held in rows
    ]


def _stats(counts: Sequence[int], consumers: Sequence[Consumer]) -> Stats:
    waiting, due, dead = counts
    in_flight = sum(consumer.in_flight for consumer in consumers)
    return Stats(waiting, in_flight, due, dead, sum(consumer.lease > 0 for consumer in consumers))


def _pauses(flat: Sequence[bytes]) -> list[Pause]:
    return sorted(_pause(_text(task), said) for task, said in _pairs(flat))


def _pause(task: str, text: bytes) -> Pause:
    """A pause that another version has written counts, even when nobody can read why."""
    try:
        said = json.loads(text)
        at = dt.datetime.fromisoformat(said["at"]).astimezone(dt.UTC)
        return Pause(task, _shown(said["by"]), _shown(said["why"]), at)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Pause(task, "", "", dt.datetime.fromtimestamp(0, dt.UTC))


def _shown(said: Any) -> str:
    # JSON can hold half of a surrogate pair, which no page can.
    return str(said).encode("utf-8", "backslashreplace").decode()


def _text(name: bytes) -> str:
    """A name on the server; anybody who reaches it can have written any bytes."""
    return name.decode("utf-8", "backslashreplace")


def _number(text: bytes) -> int:
    """A count on the server; 0 if the value isn't one."""
    return int(text) if text.isdigit() and len(text) < 19 else 0


def _counts(flat: Sequence[bytes]) -> list[int]:
    """`_number` of each second one of these. A page reads some 100,000, so all are checked at
    once."""
    texts = flat[1::2]
    if b"".join(texts).isdigit() and all(texts) and max(map(len, texts)) < 19:
        return list(map(int, texts))
    return list(map(_number, texts))


class _Names(dict[bytes, str]):
    """`_text`, which is remembered: the fields of counts are the same few, over and over."""

    #: A bound: anybody who reaches the server can have written any number of names.
    MOST = 10_000

    def __missing__(self, name: bytes) -> str:
        text = _text(name)
        if len(self) < self.MOST:
            self[name] = text
        return text


_NAMES = _Names()


def _by_limit(slots: Sequence[Slot]) -> list[tuple[tuple[str, int], Sequence[int]]]:
    """Limit and its size → the places of its slots in the sequence, in parts for one script."""
    places: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for n, slot in enumerate(slots):
        places[slot.limit, slot.most].append(n)
    return [(limit, part) for limit, all_ in places.items() for part in _cut(all_, _HOLDERS)]


def _due(flat: Sequence[Any]) -> list[Waiting]:
    """Members of the due ones, each with its time."""
    split = ((*form.partition(b"|")[::2], at) for form, at in _pairs(flat))
    return [
        Waiting(raw, _number(priority), math.floor(min(max(0.0, float(at)), _NEVER_MS)) / 1000)
        for priority, raw, at in split
    ]


def _member(priority: int, raw: bytes) -> bytes:
    """A message as a member of the due ones."""
    return b"%d|%b" % (priority, raw)


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _ranges(numbers: Iterable[int]) -> list[int]:
    """First and last number of each range. What is settled together was mostly claimed together:
    most of a batch is one range, while each number would be packed, sent and read by itself."""
    ranges: list[int] = []
    expected = None
    for number in numbers:
        if number == expected:
            ranges[-1] = number
        else:
            ranges += (number, number)
        expected = number + 1
    return ranges


def _cut(values: Sequence[Any], size: int = _CHUNK) -> Iterator[Sequence[Any]]:
    for i in range(0, len(values), size):
        yield values[i : i + size]


def _due_ms(seconds: float) -> int:
    # Rounded up: nothing runs before its time.
    return math.ceil(seconds * 1000)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
