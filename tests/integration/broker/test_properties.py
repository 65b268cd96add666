"""Whatever is done, in whatever order: no message is lost, none is doubled, none changes places.

Hypothesis makes up sequences of the broker's verbs; after each step, what the broker holds must
be what the plain model below holds, message for message and in order.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from jobs.broker.base import Broker, Outgoing, Pause, Returned, Waiting
from jobs.broker.memory import MemoryBroker
from jobs.broker.redis import RedisBroker
from tests.integration.broker.helpers import LEASE, expire
from tests.integration.broker.lua.keys import DEAD, DUE, LISTS

FAR = 9_999_999_999.0

consumers = st.sampled_from(["w1", "w2", "w3"])
priorities = st.integers(0, 9)
numbers = st.integers(1, 12)
times = st.sampled_from([0.001, 0.002, 0.003, FAR])


@dataclasses.dataclass
class State:
    """All that a broker holds of the queue ``mail``."""

    #: A list for each priority step, the next message first.
    waiting: list[list[bytes]] = dataclasses.field(default_factory=lambda: [[], [], [], []])
    due: dict[tuple[int, bytes], float] = dataclasses.field(default_factory=dict)
    held: dict[str, dict[int, bytes]] = dataclasses.field(default_factory=dict)
    #: The oldest first.
    dead: list[bytes] = dataclasses.field(default_factory=list)

    def messages(self) -> list[bytes]:
        return [
            *(raw for step in self.waiting for raw in step),
            *(raw for _, raw in self.due),
            *(raw for held in self.held.values() for raw in held.values()),
            *self.dead,
        ]


class Subject(ABC):
    """A broker, and the hands that a test needs inside it."""

    broker: Broker

    @abstractmethod
    def state(self) -> State: ...

    @abstractmethod
    def forget_scripts(self) -> None: ...


class OnRedis(Subject):
    def __init__(self, broker: RedisBroker, client: redis.Redis) -> None:
        client.flushall()
        self.broker, self._client = broker, client

    def state(self) -> State:
        pipe = self._client.pipeline(transaction=False)
        for name in LISTS:
            pipe.lrange(name, 0, -1)
        pipe.zrange(DUE, 0, -1, withscores=True)
        pipe.xrange(DEAD)
        *lists, due, dead = pipe.execute()
        held = {
            key.decode().rpartition(":")[2]: {
                int(number): raw for number, raw in self._client.hgetall(key).items()
            }
            for key in self._client.keys("{mail}:inflight:*")
        }
        return State(
            [list(reversed(waiting)) for waiting in lists],
            {(int(member[:1]), member[2:]): score / 1000 for member, score in due},
            held,
            [fields[b"message"] for _, fields in dead],
        )

    def forget_scripts(self) -> None:
        self._client.script_flush()


class InMemory(Subject):
    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._queue = self.broker._queues["mail"]

    def state(self) -> State:
        queue = self._queue
        return State(
            [list(waiting) for waiting in queue.lists],
            dict(queue.due),
            {consumer: dict(held) for consumer, held in queue.in_flight.items()},
            [letter.raw for letter in queue.dead.values()],
        )

    def forget_scripts(self) -> None:
        pass


class Machine(RuleBasedStateMachine):
    """The model, and each verb done to it and to the broker alike."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject, self.broker = subject, subject.broker
        self.model = State()
        self.known: set[str] = set()
        self.perhaps_known: set[str] = set()  # claimed nothing: brokers may differ
        self.ended: set[str] = set()
        self.revoked: dict[str, int] = {}
        self.paused = False
        self.gone: list[bytes] = []  # acked or discarded
        self.sent = 0
        self.next = Counter({"w1": 1, "w2": 1, "w3": 1})

    # ------------------------------------------------------------------ verbs

    @rule(priority=priorities, count=st.integers(1, 4), due=st.none() | times)
    def push(self, priority: int, count: int, due: float | None) -> None:
        raws = [b"%d" % n for n in range(self.sent, self.sent + count)]
        self.sent += count
        self.broker.push([Outgoing("mail", raw, priority, due) for raw in raws])
        for raw in raws:
            if due is None:
                self.model.waiting[priority // 3].append(raw)
            else:
                self.model.due[priority, raw] = due

    @rule(consumer=consumers, limit=st.integers(0, 6), answer_lost=st.booleans())
    def claim(self, consumer: str, limit: int, answer_lost: bool) -> None:
        first = self.next[consumer]
        if answer_lost:
            self.broker.claim("mail", consumer, first, limit, LEASE)
        claimed = self.broker.claim("mail", consumer, first, limit, LEASE)
        if self.paused:
            assert (claimed.messages, claimed.next_due) == ([], None)
            self.perhaps_known.add(consumer)
            return
        ready = sorted((at, b"%d|%b" % key, key) for key, at in self.model.due.items() if at < FAR)
        for _, _, (priority, raw) in ready:
            self.model.waiting[priority // 3].append(raw)
            del self.model.due[priority, raw]
        taken = [raw for step in self.model.waiting for raw in step][:limit]
        for raw in taken:
            next(step for step in self.model.waiting if raw in step).remove(raw)
        assert claimed.messages == list(enumerate(taken, first))
        assert (claimed.next_due is None) == (not self.model.due)
        assert not taken or claimed.revocations == bool(self.revoked)
        if taken:
            self.model.held.setdefault(consumer, {}).update(claimed.messages)
            self.known.add(consumer)
        self.next[consumer] += len(taken)
        self.perhaps_known.add(consumer)

    @rule()
    def pause(self) -> None:
        self.broker.pause("mail", Pause("", "ada", "", dt.datetime(2026, 3, 1, tzinfo=dt.UTC)))
        self.paused = True

    @rule()
    def resume(self) -> None:
        assert self.broker.resume("mail") is self.paused
        self.paused = False

    @rule(consumer=consumers, limit=st.integers(0, 6))
    def take(self, consumer: str, limit: int) -> None:
        """Paused or not, and nothing that is due."""
        first, steps = self.next[consumer], self.model.waiting
        expected = [Waiting(raw, 3 * n) for n, step in enumerate(steps) for raw in step][:limit]
        assert list(self.broker.browse("mail", due=False))[:limit] == expected
        assert self.broker.take("mail", consumer, first, limit, LEASE) == expected
        for message in expected:
            steps[message.priority // 3].remove(message.raw)
        if expected:
            held = {number: message.raw for number, message in enumerate(expected, first)}
            self.model.held.setdefault(consumer, {}).update(held)
            self.known.add(consumer)
            self.ended.discard(consumer)
        self.next[consumer] += len(expected)

    @rule()
    def withdraw(self) -> None:
        due = list(self.broker.browse("mail", due=True))[:2]
        assert self.broker.withdraw("mail", due) == len(due)
        for raw, priority, _ in due:
            del self.model.due[priority, raw]
            self.gone.append(raw)

    @rule(consumer=consumers, which=st.lists(numbers, max_size=5))
    def ack(self, consumer: str, which: list[int]) -> None:
        removed = [raw for number in which if (raw := self._taken(consumer, number)) is not None]
        self.gone += removed
        assert self.broker.ack("mail", consumer, which) == len(removed)

    @rule(consumer=consumers, number=numbers, priority=priorities, due=times)
    def retry(self, consumer: str, number: int, priority: int, due: float) -> None:
        raw = self._taken(consumer, number)
        again = b"lost" if raw is None else raw + b"r"
        done = self.broker.retry("mail", consumer, number, again, priority, due)
        assert done is (raw is not None)
        if done:
            self.model.due[priority, again] = due

    @rule(
        consumer=consumers,
        which=st.lists(numbers, max_size=5, unique=True),
        priority=priorities,
        edited=st.booleans(),
    )
    def release(self, consumer: str, which: list[int], priority: int, edited: bool) -> None:
        given: list[Returned] = []
        front: list[bytes] = []
        for number in sorted(which):
            raw = self._taken(consumer, number)
            new = b"lost" if raw is None else raw + b"e"
            given.append(Returned(number, priority, new if edited else None))
            if raw is not None:
                front.append(new if edited else raw)
        assert self.broker.release("mail", consumer, given) == len(front)
        self.model.waiting[priority // 3][:0] = front

    @rule(consumer=consumers, number=numbers)
    def dead_letter(self, consumer: str, number: int) -> None:
        raw = self._taken(consumer, number)
        assert self.broker.dead_letter("mail", consumer, number, "why", "w") is (raw is not None)
        if raw is not None:
            self.model.dead.append(raw)

    @rule(consumer=consumers, which=st.lists(numbers, max_size=5))
    def held(self, consumer: str, which: list[int]) -> None:
        known = self.model.held.get(consumer, {})
        assert self.broker.held("mail", consumer, which) == known.keys() & set(which)

    @rule(task=st.sampled_from(["id-1", "id-2"]), terminate=st.booleans())
    def revoke(self, task: str, terminate: bool) -> None:
        self.broker.revoke("mail", task, LEASE, terminate=terminate)
        self.revoked[task] = max(1 + terminate, self.revoked.get(task, 0))

    @rule(task=st.sampled_from(["id-1", "id-2"]))
    def unrevoke(self, task: str) -> None:
        self.broker.unrevoke("mail", task)
        self.revoked.pop(task, None)

    @rule()
    def ask_what_is_revoked(self) -> None:
        asked = ["id-2", "id-1", "id-3"]
        assert self.broker.revoked("mail", asked) == [self.revoked.get(task, 0) for task in asked]

    @rule(index=st.integers(0, 3), priority=priorities, keep=st.booleans(), edited=st.booleans())
    def deal_with_a_dead_letter(self, index: int, priority: int, keep: bool, edited: bool) -> None:
        letters = self.broker.dead_letters("mail", 100)
        assert [letter.raw for letter in letters] == self.model.dead[::-1]
        if index >= len(letters):
            return
        raw = self.model.dead.pop(-1 - index)
        if keep:
            new = raw + b"e" if edited else None
            assert self.broker.requeue("mail", letters[index].key, priority, new)
            self.model.waiting[priority // 3].append(new or raw)
        else:
            assert self.broker.discard("mail", letters[index].key)
            self.gone.append(raw)

    @rule(consumer=consumers)
    def vanish(self, consumer: str) -> None:
        expire(self.broker, consumer)
        self.known.add(consumer)
        self.ended.add(consumer)

    @rule(who=st.lists(consumers, max_size=3))
    def renew(self, who: list[str]) -> None:
        self.broker.renew("mail", who, LEASE)
        self.known |= set(who)
        self.ended -= set(who)

    @rule()
    def reclaim(self) -> None:
        expired = self.broker.expired("mail")
        assert sorted(expired) == sorted(self.ended)
        for consumer in expired:
            held = self.model.held.pop(consumer, {})
            back = [held[number] + b"c" for number in sorted(held)]
            given = self.broker.reclaim(
                "mail", consumer, lambda number, raw: Returned(number, 4, raw + b"c")
            )
            assert given == len(back)
            self.model.waiting[1][:0] = back
            self._forget(consumer)

    @rule(consumer=consumers)
    def leave(self, consumer: str) -> None:
        self.broker.leave("mail", consumer)
        if consumer not in self.model.held:
            self._forget(consumer)

    @rule()
    def forget_scripts(self) -> None:
        self.subject.forget_scripts()

    def _forget(self, consumer: str) -> None:
        for names in (self.known, self.perhaps_known, self.ended):
            names.discard(consumer)

    def _taken(self, consumer: str, number: int) -> bytes | None:
        held = self.model.held.get(consumer, {})
        raw = held.pop(number, None)
        if not held:
            self.model.held.pop(consumer, None)
        return raw

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def the_broker_holds_what_the_model_holds(self) -> None:
        assert self.subject.state() == self.model

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        everywhere = Counter(int(raw.rstrip(b"rec")) for raw in self.model.messages() + self.gone)
        assert everywhere == Counter(range(self.sent))

    @invariant()
    def the_counts_are_right(self) -> None:
        state, stats = self.model, self.broker.stats("mail")
        assert stats.waiting == sum(map(len, state.waiting))
        assert stats.in_flight == sum(map(len, state.held.values()))
        assert (stats.due, stats.dead) == (len(state.due), len(state.dead))
        names = {consumer.name for consumer in self.broker.consumers("mail")}
        assert self.known <= names <= self.known | self.perhaps_known
        assert stats.consumers == len(names - self.ended)


HOW: Any = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_scripts_lose_and_double_nothing(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    run_state_machine_as_test(lambda: Machine(OnRedis(redis_broker, client)), settings=HOW)


def test_the_memory_broker_loses_and_doubles_nothing() -> None:
    run_state_machine_as_test(lambda: Machine(InMemory()), settings=HOW)
