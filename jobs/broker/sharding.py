"""One queue on several shards: the only file that knows how.

A *shard* is a queue of the broker with keys of its own, and so, on a cluster, with a node of its
own. The first shard of a queue has the queue's name, so a queue that gets a second shard loses
nothing.

`Sharded` is the broker as senders and operators see it: they name queues. Only workers name shards,
and use the broker behind it (`jobs.broker.by_shard`).

The settings say to how many shards a process sends. It notes that number on the broker before it
sends to a queue, so the broker knows how many shards may hold messages. Every worker claims from
all of these, whatever its own settings say. A shard that nobody sends to any more is claimed from
until it is empty (`Sharded.forget_unused`).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from jobs.broker.base import (
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
)
from jobs.broker.celery import CeleryChannels
from jobs.broker.celery_ends import CeleryEnds
from jobs.broker.counting import Counts, Span
from jobs.broker.limiting import Lock, Permit, Slot, Wish
from jobs.exceptions import BrokerUnavailable, QueueRefused

log = logging.getLogger("jobs.broker")

_T = TypeVar("_T")

#: Between a queue's name and the number of a shard. `conf.values.is_queue_name` refuses it in the
#: name of a queue.
_MARK = "\x16"

#: Seconds for which a process believes what it has read of the numbers of shards.
FRESH = 5.0

#: Seconds after which a process that sends repeats its numbers, which a server that was emptied has
#: lost.
REPEATED = 30.0
#: Seconds after which a number that nobody has repeated is forgotten, if its shards are empty.
_UNUSED = 7200.0

#: Most revocations that a new shard is given.
_REVOKED_MOST = 1000

#: Due messages that are read of a shard at once.
_PAGE = 200


def shard(queue: str, number: int) -> str:
    """The name of a queue's shard; 0 is the first."""
    return f"{queue}{_MARK}{number}" if number else queue


def queue_of(shard: str) -> str:
    """The queue that a shard belongs to."""
    return shard.partition(_MARK)[0]


def shown(shard: str) -> str:
    """The name of a shard for people."""
    return shard.replace(_MARK, "/")


def number_for(key: str, count: int) -> int:
    """The shard, of so many, that calls with this key go to."""
    return zlib.crc32(key.encode("utf-8", "backslashreplace")) % count


class Sharded(Broker):
    """A broker whose verbs name queues. Those for workers and supervisors name shards."""

    def __init__(self, shards: Broker, counts: Mapping[str, int]) -> None:
        """``shards``: the broker, for which a shard is a queue like any other. ``counts``: on how
        many shards this process sends to which queue, where it isn't one."""
        self._behind = shards
        self.address = shards.address
        self._sends = dict(counts)
        #: Queue → the numbers of the shards that messages without a key go to. `next` of a count is
        #: atomic, so threads share it. Processes begin anywhere: many of them send one message.
        self._turns = {
            queue: itertools.count(random.randrange(count))  # noqa: S311
            for queue, count in self._sends.items()
        }
        #: When this process repeats its numbers (monotonic).
        self._repeat_at = 0.0
        #: The numbers on the broker, and until when they are believed (monotonic).
        self._known: tuple[Mapping[str, int], float] = ({}, 0.0)
        #: Queue and worker → the shards that it compares with the ledger.
        self._compared: dict[tuple[str, str], list[str]] = {}

    @property
    def by_shard(self) -> Broker:
        return self._behind

    # ------------------------------------------------------------------ shards

    def shards_of(self, queue: str, *, now: bool = False) -> list[str]:
        count = max(self._sends.get(queue, 1), self._remembered(now=now).get(queue, 1))
        return [shard(queue, number) for number in range(count)]

    def all_shards(self, queues: Sequence[str]) -> dict[str, list[str]]:
        self._remembered(now=True)
        return {queue: self.shards_of(queue) for queue in queues}

    def address_for(self, queue: str, key: str) -> str:
        count = self._sends.get(queue, 1)
        return f"{queue}{_MARK}{number_for(key, count)}" if count > 1 else queue

    def _remembered(self, *, now: bool = False) -> Mapping[str, int]:
        known, until = self._known
        if now or time.monotonic() >= until:
            try:
                known = self._behind.remembered_shards()
            except QueueRefused as error:  # who may not read this has none, or is told when sending
                log.debug("the numbers of shards can't be read: %s", error)
                known = {}
            except BrokerUnavailable as error:
                if not error.partly:
                    raise
                # That node of a Cluster is away. What was known holds for the others.
                log.debug("the numbers of shards can't be read now: %s", error)
            self._known = known, time.monotonic() + FRESH
        return known

    def _open(self) -> None:
        """Before anything is sent: tell the broker, and so every worker, which shards there are."""
        before = self._remembered(now=True)
        self._behind.remember_shards(self._sends)
        for queue, count in self._sends.items():
            if count > before.get(queue, 1):
                log.warning("queue %s has %d shards now", queue, count)
                self._align(queue, [shard(queue, n) for n in range(before.get(queue, 1), count)])
        self._known = {}, 0.0
        self._repeat_at = time.monotonic() + REPEATED

    def _align(self, queue: str, new: Sequence[str]) -> None:
        """Give new shards the pauses and revocations of their queue.

        From now on operators write on these shards, too. What one has written before, or while this
        reads, is found by looking again.
        """
        for _ in range(10):
            pauses = self._behind.paused(queue)
            for name in new:
                for gone in set(self._behind.paused(name)).difference(pauses):
                    self._behind.resume(name, gone.task)
                for pause in pauses:
                    self._behind.pause(name, pause)
            if self._behind.paused(queue) == pauses:
                break
        for said in self._behind.revocations(queue, _REVOKED_MOST):
            seconds = max(1.0, said.until - time.time())
            for name in new:
                self._behind.revoke(name, said.id, seconds, terminate=said.terminate)

    def forget_unused(self, queue: str) -> bool:
        """Forget the shards of a queue on which nobody sends any more, if they are empty. Whether
        they were."""
        count = self._sends.get(queue, 1)
        beyond = self.shards_of(queue)[count:]
        if not beyond or any(any(said.stats[:4]) for said in self._behind.survey(beyond)):
            return False
        if not self._behind.forget_shards(queue, count, _UNUSED):
            return False
        self._known = {}, 0.0
        return True

    def _on_all(self, queue: str, act: Callable[[str], _T]) -> list[_T]:
        """Do something on each shard, also on those that are opened meanwhile."""
        done: list[_T] = []
        names = self.shards_of(queue)
        while len(done) < len(names):
            done += [act(name) for name in names[len(done) :]]
            names = self.shards_of(queue, now=True)
        return done

    # ------------------------------------------------------------------ producers

    def push(self, messages: Iterable[Outgoing], replicas: int = 0) -> None:
        if self._sends:
            if time.monotonic() >= self._repeat_at:
                self._open()
            placed = map(self._placed, messages)
            messages = tuple(placed) if isinstance(messages, tuple) else placed
        try:
            self._behind.push(messages, replicas)
        except QueueRefused as error:
            error.queues = tuple(dict.fromkeys(map(queue_of, error.queues)))
            raise

    def _placed(self, sent: Outgoing) -> Outgoing:
        queue, _mark, number = sent.queue.partition(_MARK)
        if number:
            return sent._replace(queue=shard(queue, int(number)))
        count = self._sends.get(queue)
        if count is None:
            return sent
        return sent._replace(queue=shard(queue, next(self._turns[queue]) % count))

    def check_queues(self, queues: Collection[str]) -> None:
        names = [
            shard(queue, n)
            for queue in dict.fromkeys(map(queue_of, queues))
            for n in range(self._sends.get(queue, 1))
        ]
        try:
            self._behind.check_queues(names)
        except QueueRefused as error:
            error.queues = tuple(dict.fromkeys(map(queue_of, error.queues)))
            raise

    # ------------------------------------------------------------------ operators

    def pause(self, queue: str, pause: Pause) -> None:
        self._on_all(queue, lambda name: self._behind.pause(name, pause))

    def resume(self, queue: str, task: str = "") -> bool:
        return any(self._on_all(queue, lambda name: self._behind.resume(name, task)))

    def revoke(self, queue: str, task_id: str, seconds: float, *, terminate: bool) -> None:
        def revoke(name: str) -> None:
            self._behind.revoke(name, task_id, seconds, terminate=terminate)

        self._on_all(queue, revoke)

    def unrevoke(self, queue: str, task_id: str) -> None:
        self._on_all(queue, lambda name: self._behind.unrevoke(name, task_id))

    def hasten(self, queue: str, raw: bytes, priority: int) -> bool:
        return any(self._behind.hasten(name, raw, priority) for name in self.shards_of(queue))

    def withdraw(self, queue: str, messages: Sequence[Waiting]) -> int:
        return sum(self._behind.withdraw(name, messages) for name in self.shards_of(queue))

    def stats(self, queue: str) -> Stats:
        names = self.shards_of(queue)
        if len(names) == 1:
            return self._behind.stats(queue)
        consumers = self.consumers(queue)
        found = [self._behind.stats(name) for name in names]
        return _total(found, consumers)

    def consumers(self, queue: str) -> list[Consumer]:
        names = self.shards_of(queue)
        return _by_name(one for name in names for one in self._behind.consumers(name))

    def survey(self, queues: Sequence[str]) -> list[Survey]:
        names = [self.shards_of(queue) for queue in queues]
        said = iter(self._behind.survey(list(itertools.chain.from_iterable(names))))
        return [_as_one(list(itertools.islice(said, len(own)))) for own in names]

    def scan(self, queue: str) -> Iterator[bytes]:
        for name in self.shards_of(queue):
            yield from self._behind.scan(name)

    def browse(self, queue: str, *, due: bool) -> Iterator[Waiting]:
        found = [self._behind.browse(name, due=due) for name in self.shards_of(queue)]
        return heapq.merge(*found, key=_due) if due else _in_turn(found)

    def peek(self, queue: str, start: int, count: int) -> list[Waiting]:
        names = self.shards_of(queue)
        if len(names) == 1:
            return self._behind.peek(queue, start, count)
        # In the order in which they are claimed: the first of each shard, the second of each, …
        skipped, row = 0, 0
        if start:
            lengths = [self._behind.stats(name).waiting for name in names]
            skipped, row = _row_of(start, lengths)
        found = [self._behind.peek(name, row, start - skipped + count) for name in names]
        return list(itertools.islice(_in_turn(found), start - skipped, start - skipped + count))

    def peek_due(self, queue: str, count: int, since: float = 0.0, skip: int = 0) -> list[Waiting]:
        names = self.shards_of(queue)
        if len(names) == 1:
            return self._behind.peek_due(queue, count, since, skip)
        found = heapq.merge(*(self._due_from(name, since) for name in names), key=_due)
        return list(itertools.islice(found, skip, skip + count))

    def peek_in_flight(self, queue: str, start: int, count: int) -> list[InFlight]:
        names = self.shards_of(queue)
        if len(names) == 1:
            return self._behind.peek_in_flight(queue, start, count)
        found: list[InFlight] = []
        for name in names:
            wanted = start + count - len(found)
            if wanted <= 0:
                break
            held = self._behind.stats(name).in_flight
            if held <= start:
                start -= held
                continue
            page = self._behind.peek_in_flight(name, start, count - len(found))
            found += [one._replace(shard=name) for one in page]
            start = 0
        return found

    def revocations(self, queue: str, count: int) -> list[Revoked]:
        names = self.shards_of(queue)
        said = {one.id: one for name in names for one in self._behind.revocations(name, count)}
        return sorted(said.values(), key=lambda one: -one.until)[:count]

    def _due_from(self, name: str, since: float) -> Iterator[Waiting]:
        """The due messages of a shard from this time on, read in pages."""
        for skip in itertools.count(0, _PAGE):
            page = self._behind.peek_due(name, _PAGE, since, skip)
            yield from page
            if len(page) < _PAGE:
                return

    # ------------------------------------------------------------------ recovery

    def doubtful(self, queues: Sequence[str]) -> list[str]:
        names = {name: queue for queue in queues for name in self.shards_of(queue)}
        return list(dict.fromkeys(names[name] for name in self._behind.doubtful(list(names))))

    def compare(self, queue: str, who: str, step: Compare) -> bool:
        if step is Compare.BEGIN:
            # Of the shards, only some may be in doubt: each may be on a server of its own.
            doubtful = self._behind.doubtful(self.shards_of(queue))
            begun = [name for name in doubtful if self._behind.compare(name, who, step)]
            self._compared[queue, who] = begun
            return bool(begun)
        names = self._compared.get((queue, who), [])
        kept = [self._behind.compare(name, who, step) for name in names]
        return all(kept)

    # ------------------------------------------------------------------ dead letters
    # The key of one on a further shard ends with a dot and the number of the shard.

    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        return self.dead_letters_of({queue: before}, count)[queue]

    def dead_letters_of(
        self, before: Mapping[str, str | None], count: int
    ) -> dict[str, list[DeadLetter]]:
        names = {queue: self.shards_of(queue) for queue in before}
        asked = {
            name: _before(before[queue], number)
            for queue, own in names.items()
            for number, name in enumerate(own)
        }
        found = self._behind.dead_letters_of(asked, count)
        return {
            queue: _newest(
                [
                    letter._replace(key=f"{letter.key}.{number}") if number else letter
                    for number, name in enumerate(own)
                    for letter in found[name]
                ],
                count,
            )
            if len(own) > 1
            else found[queue]
            for queue, own in names.items()
        }

    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        name, own = _letter(queue, key)
        found = self._behind.dead_letter_at(name, own)
        return found and found._replace(key=key)

    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        name, own = _letter(queue, key)
        return self._behind.requeue(name, own, priority, raw)

    def discard(self, queue: str, key: str) -> bool:
        name, own = _letter(queue, key)
        return self._behind.discard(name, own)

    # ------------------------------------------------------------------ numbers

    def counts(self, spans: Sequence[Span]) -> list[Found]:
        parts = [
            [span._replace(queue=name) for name in self.shards_of(span.queue)] for span in spans
        ]
        answers = iter(self._behind.counts(list(itertools.chain.from_iterable(parts))))
        return [_summed(list(itertools.islice(answers, len(part)))) for part in parts]

    def task_counts(
        self, spans: Sequence[Span], fields: Sequence[str] = ()
    ) -> list[Mapping[str, Counts]]:
        # Workers count on the first shard.
        return self._behind.task_counts(spans, fields)

    # ------------------------------------------------------------------ as they are
    # About one shard, about the first shard (notes, reports, commands, pauses as operators see
    # them), or about no queue at all.

    def briefly(self, *, insist: bool) -> contextlib.AbstractContextManager[None]:
        return self._behind.briefly(insist=insist)

    def passing_over(self) -> contextlib.AbstractContextManager[None]:
        return self._behind.passing_over()

    def claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Claim:
        return self._behind.claim(queue, consumer, first, limit, lease)

    def wait(self, queues: Sequence[str], timeout: float) -> str | None:
        return self._behind.wait(queues, timeout)

    def stirring(self, queues: Sequence[str], due: Collection[str] = ()) -> list[str]:
        return self._behind.stirring(queues, due)

    def wait_and_claim(
        self, queue: str, consumer: str, first: int, limit: int, lease: float, timeout: float
    ) -> Claim:
        return self._behind.wait_and_claim(queue, consumer, first, limit, lease, timeout)

    def ring_for_foreign(self, queue: str, timeout: float) -> int:
        return self._behind.ring_for_foreign(queue, timeout)

    def ack(
        self, queue: str, consumer: str, numbers: Sequence[int], ended: Sequence[str] = ()
    ) -> int:
        return self._behind.ack(queue, consumer, numbers, ended)

    def retry(
        self, queue: str, consumer: str, number: int, raw: bytes, priority: int, due: float
    ) -> bool:
        return self._behind.retry(queue, consumer, number, raw, priority, due)

    def retry_all(self, queue: str, consumer: str, deliveries: Sequence[Later]) -> None:
        self._behind.retry_all(queue, consumer, deliveries)

    def release(self, queue: str, consumer: str, deliveries: Sequence[Returned]) -> int:
        return self._behind.release(queue, consumer, deliveries)

    def hold_again(
        self,
        queue: str,
        consumer: str,
        deliveries: Mapping[int, bytes],
        following: int,
        lease: float,
    ) -> int:
        return self._behind.hold_again(queue, consumer, deliveries, following, lease)

    def held(self, queue: str, consumer: str, numbers: Sequence[int]) -> set[int]:
        return self._behind.held(queue, consumer, numbers)

    def held_by(self, deliveries: Sequence[tuple[str, str, Sequence[int]]]) -> list[bytes | None]:
        return self._behind.held_by(deliveries)

    def numbers_held(self, queues: Sequence[str], consumer: str) -> dict[str, set[int]]:
        return self._behind.numbers_held(queues, consumer)

    def taken(self, queue: str, consumer: str) -> bool:
        return self._behind.taken(queue, consumer)

    def revoked(self, queue: str, ids: Sequence[str]) -> list[Revocation]:
        return self._behind.revoked(queue, ids)

    def leave(self, queue: str, consumer: str) -> None:
        self._behind.leave(queue, consumer)

    def renew(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        self._behind.renew(queue, consumers, lease)

    def retain(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        self._behind.retain(queue, consumers, lease)

    def attended(self, queues: Sequence[str]) -> list[str]:
        return self._behind.attended(queues)

    def expired(self, queue: str) -> list[str]:
        return self._behind.expired(queue)

    def reclaim(self, queue: str, consumer: str, edit: Callable[[int, bytes], Returned]) -> int:
        return self._behind.reclaim(queue, consumer, edit)

    def dead_letter(self, queue: str, consumer: str, number: int, reason: str, worker: str) -> bool:
        return self._behind.dead_letter(queue, consumer, number, reason, worker)

    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        self._behind.bury(queue, raw, reason, worker)

    def park(self, queue: str, consumer: str, deliveries: Sequence[Parking]) -> set[int]:
        return self._behind.park(queue, consumer, deliveries)

    def take(
        self, queue: str, consumer: str, first: int, limit: int, lease: float
    ) -> list[Waiting]:
        return self._behind.take(queue, consumer, first, limit, lease)

    def pick(self, queue: str, consumer: str, number: int, lease: float, message: Waiting) -> bool:
        return self._behind.pick(queue, consumer, number, lease, message)

    def paused(self, queue: str) -> list[Pause]:
        return self._behind.paused(queue)

    def paused_of(self, queues: Sequence[str]) -> list[list[Pause]]:
        return self._behind.paused_of(queues)

    def note(self, queue: str, notes: Sequence[Note], seconds: float) -> None:
        self._behind.note(queue, notes, seconds)

    def noted(self, queue: str, task_id: str, about: About) -> bytes | None:
        return self._behind.noted(queue, task_id, about)

    def noted_of(self, queue: str, task_ids: Sequence[str], about: About) -> list[bytes | None]:
        return self._behind.noted_of(queue, task_ids, about)

    def forget_notes(self, queue: str, task_ids: Sequence[str], about: About) -> None:
        self._behind.forget_notes(queue, task_ids, about)

    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        self._behind.report(queue, worker, text)

    def reports(self, queue: str) -> Mapping[str, bytes]:
        return self._behind.reports(queue)

    def reports_of(self, queues: Sequence[str]) -> list[Mapping[str, bytes]]:
        return self._behind.reports_of(queues)

    def report_ages(self, queue: str, most: int = 0) -> Mapping[str, float]:
        return self._behind.report_ages(queue, most)

    def report_ages_of(self, queues: Sequence[str]) -> list[Mapping[str, float]]:
        return self._behind.report_ages_of(queues)

    def note_gone(self, queue: str, text: bytes, worker: str = "") -> bool:
        return self._behind.note_gone(queue, text, worker)

    def gone_of(self, queues: Sequence[str]) -> list[list[bytes]]:
        return self._behind.gone_of(queues)

    def command(self, queue: str, worker: str, text: bytes, seconds: float) -> None:
        self._behind.command(queue, worker, text, seconds)

    def take_commands(self, queue: str, worker: str) -> list[bytes]:
        return self._behind.take_commands(queue, worker)

    def answer(self, queue: str, command_id: str, text: bytes, seconds: float) -> None:
        self._behind.answer(queue, command_id, text, seconds)

    def answered(self, queue: str, command_id: str) -> bytes | None:
        return self._behind.answered(queue, command_id)

    def count(self, queue: str, counts: Counts, tasks: Mapping[str, Counts]) -> None:
        self._behind.count(queue, counts, tasks)

    def subscribe(self, *topics: str) -> contextlib.AbstractContextManager[Subscription]:
        return self._behind.subscribe(*topics)

    def notify(self, topic: str) -> None:
        self._behind.notify(topic)

    def listen(self, task_id: str) -> contextlib.AbstractContextManager[Subscription]:
        return self._behind.listen(task_id)

    def listeners(self, topic: str) -> int | None:
        return self._behind.listeners(topic)

    def celery(self) -> CeleryChannels:
        return self._behind.celery()

    def celery_ends(self) -> CeleryEnds:
        return self._behind.celery_ends()

    def chord_size(self, group_id: str) -> int | None:
        return self._behind.chord_size(group_id)

    def chord_results(self, group_id: str) -> bytes | None:
        return self._behind.chord_results(group_id)

    def store_celery_results(self, results: Sequence[CeleryResult], seconds: float | None) -> None:
        self._behind.store_celery_results(results, seconds)

    def store_celery_parts(
        self, group_id: str, parts: Sequence[tuple[int, str]], seconds: float | None
    ) -> None:
        self._behind.store_celery_parts(group_id, parts, seconds)

    def keeping(self) -> Keeping:
        return self._behind.keeping()

    def damaged(self) -> list[str]:
        return self._behind.damaged()

    def ping(self) -> None:
        self._behind.ping()

    def close(self) -> None:
        self._behind.close()

    def remember_queues(self, queues: Collection[str]) -> None:
        self._behind.remember_queues(queues)

    def remembered_queues(self, count: int) -> list[str]:
        return self._behind.remembered_queues(count)

    def remember_shards(self, counts: Mapping[str, int]) -> None:
        self._behind.remember_shards(counts)

    def remembered_shards(self) -> Mapping[str, int]:
        return self._behind.remembered_shards()

    def forget_shards(self, queue: str, above: int, seconds: float) -> bool:
        return self._behind.forget_shards(queue, above, seconds)

    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        return self._behind.permits(wishes)

    def set_override(self, name: str, text: bytes | None) -> bool:
        return self._behind.set_override(name, text)

    def overrides(self) -> Mapping[str, bytes]:
        return self._behind.overrides()

    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        return self._behind.take_slots(slots)

    def keep_slots(self, slots: Sequence[Slot]) -> None:
        self._behind.keep_slots(slots)

    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        self._behind.wait_for_slots(slots)

    def free_slots(self, slots: Sequence[Slot]) -> None:
        self._behind.free_slots(slots)

    def slots_in_use(self, limits: Sequence[str]) -> list[int]:
        return self._behind.slots_in_use(limits)

    def lock(self, locks: Sequence[Lock]) -> list[str]:
        return self._behind.lock(locks)

    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        return self._behind.unlock(locks)

    def locked(self, names: Sequence[str]) -> list[str]:
        return self._behind.locked(names)


# ------------------------------------------------------------------------------ many as one


def _due(found: Waiting) -> float:
    return found.due or 0.0


def _in_turn(lists: Sequence[Iterable[_T]]) -> Iterator[_T]:
    """The first of each, the second of each, …"""
    for row in itertools.zip_longest(*lists, fillvalue=_NONE):
        yield from (one for one in row if one is not _NONE)


_NONE: Any = object()


def _row_of(start: int, lengths: Sequence[int]) -> tuple[int, int]:
    """For lists of these lengths, read `_in_turn`: the row that has the element at this place, and
    how many elements stand in the rows before it."""
    low, high = 0, max(lengths)

    def before(row: int) -> int:
        return sum(min(length, row) for length in lengths)

    while low < high:  # the last row before which there are no more than ``start``
        middle = (low + high + 1) // 2
        if before(middle) <= start:
            low = middle
        else:
            high = middle - 1
    return before(low), low


def _by_name(consumers: Iterable[Consumer]) -> list[Consumer]:
    """Each consumer once, with the longest of its leases and all that it holds."""
    found: dict[str, Consumer] = {}
    for one in consumers:
        had = found.get(one.name, Consumer(one.name, one.lease, 0))
        lease = max(had.lease, one.lease)
        found[one.name] = Consumer(one.name, lease, had.in_flight + one.in_flight)
    return list(found.values())


def _total(stats: Sequence[Stats], consumers: Sequence[Consumer]) -> Stats:
    waiting, in_flight, due, dead, _ = (sum(column) for column in zip(*stats, strict=True))
    return Stats(waiting, in_flight, due, dead, sum(one.lease > 0 for one in consumers))


def _as_one(surveys: Sequence[Survey]) -> Survey:
    """The survey of a queue, from those of its shards."""
    first = surveys[0]
    if len(surveys) == 1:
        return first
    consumers = _by_name(one for said in surveys for one in said.consumers)
    return Survey(
        _total([said.stats for said in surveys], consumers),
        consumers,
        first.pauses,
        first.reports,
        [raw for said in surveys for raw in said.next_ones],
        next((said.problem for said in surveys if said.problem), ""),
    )


def _summed(found: Sequence[Found]) -> Found:
    if len(found) == 1:
        return found[0]
    total: Counter[str] = Counter()
    for one in found:
        total.update(one.counts)
    return Found(total, all(one.settled for one in found))


def _letter(queue: str, key: str) -> tuple[str, str]:
    """The shard of a dead letter, and its key there."""
    own, _dot, number = key.partition(".")
    return shard(queue, int(number)) if number.isdecimal() else queue, own


def place_among(key: str) -> tuple[int, int, int]:
    """Where a dead letter with this key stands among those of all shards: by time, then by its
    number, then by the shard."""
    own, _dot, number = key.partition(".")
    time_, _dash, serial = own.partition("-")
    return int(time_), int(serial or 0), int(number or 0)


def _newest(letters: list[DeadLetter], count: int) -> list[DeadLetter]:
    letters.sort(key=lambda letter: place_among(letter.key), reverse=True)
    return letters[:count]


def _before(key: str | None, number: int) -> str | None:
    """The key below which are the letters of a shard that stand before ``key`` in the order of all:
    on a shard with a lower number, one with the same key stands before it."""
    if key is None:
        return None
    own, _dot, of = key.partition(".")
    if not (of.isdecimal() and number < int(of)):
        return own
    time_, dash, serial = own.partition("-")
    return f"{time_}-{int(serial) + 1}" if dash else f"{int(own) + 1}"
