"""A queue on several shards: one for senders and operators, several for workers."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
import redis

from jobs.broker.base import About, Broker, Note, Outgoing, Pause, Revocation
from jobs.broker.counting import SENT, Resolution, Span
from jobs.broker.memory import MemoryBroker
from jobs.broker.redis import RedisBroker
from jobs.broker.sharding import Sharded, shard
from jobs.conf import SHARDS_MOST
from jobs.exceptions import QueueRefused
from tests.integration.broker.helpers import LEASE, claim, numbered, push

COUNT = 4
SHARDS = [shard("mail", n) for n in range(COUNT)]
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def whole(broker: Broker) -> Sharded:
    return Sharded(broker, {"mail": COUNT})


def claim_all(whole: Sharded, by: str = "w1", queue: str = "mail") -> list[bytes]:
    """What a worker claims from all shards of a queue, one after the other."""
    return [
        raw
        for name in whole.shards_of(queue)
        for _, raw in whole.by_shard.claim(name, by, 1, 1000, LEASE).messages
    ]


def dead_on(broker: Broker, name: str, raw: bytes) -> None:
    broker.push([Outgoing(name, raw)])
    (number, _), *_ = broker.claim(name, f"u{raw!r}", 1, 1, LEASE).messages
    assert broker.dead_letter(name, f"u{raw!r}", number, "why", "worker")


# ------------------------------------------------------------------------------ sending


def test_messages_take_turns_and_each_is_there_once(whole: Sharded) -> None:
    sent = numbered(20)
    push(whole, *sent)
    assert [whole.by_shard.stats(name).waiting for name in SHARDS] == [5] * COUNT
    assert whole.stats("mail").waiting == 20
    assert sorted(claim_all(whole)) == sorted(sent)


def test_due_messages_as_well(whole: Sharded) -> None:
    whole.push(Outgoing("mail", b"%d" % n, 0, 2e9 + n) for n in range(8))
    assert whole.stats("mail").due == 8
    assert [one.raw for one in whole.browse("mail", due=True)] == [b"%d" % n for n in range(8)]


def test_a_refused_shard_is_its_queue(redis_broker: RedisBroker, client: redis.Redis) -> None:
    whole = Sharded(redis_broker, {"mail": 2})
    client.set(shard("mail", 1), "somebody else's")
    with pytest.raises(QueueRefused) as refused:
        push(whole, b"a", b"b", b"c", b"d")
    assert refused.value.queues == ("mail",)
    assert refused.value.unsent is not None
    assert len(refused.value.unsent) == 2
    with pytest.raises(QueueRefused, match="mail"):
        whole.check_queues(["mail"])


# ------------------------------------------------------------------- raising and lowering


def test_who_doesn_t_know_of_new_shards_finds_them(whole: Sharded) -> None:
    former = Sharded(whole.by_shard, {})
    push(former, b"before")
    assert former.shards_of("mail") == ["mail"]
    push(whole, b"a", b"b", b"c", b"d")
    assert former.shards_of("mail", now=True) == SHARDS
    assert former.stats("mail").waiting == 5
    assert sorted(claim_all(former)) == [b"a", b"b", b"before", b"c", b"d"]


def test_shards_are_remembered_until_they_are_empty_and_unused(broker: Broker) -> None:
    push(Sharded(broker, {"mail": COUNT}), *numbered(COUNT))
    lower = Sharded(broker, {"mail": 2})
    push(lower, b"e")
    assert lower.shards_of("mail") == SHARDS
    assert not lower.forget_unused("mail")  # something waits there
    assert len(claim_all(lower)) == COUNT + 1
    assert not lower.forget_unused("mail")  # something is in flight there
    for name in SHARDS:
        broker.ack(name, "w1", [1, 2])
    assert not lower.forget_unused("mail")  # somebody may still send there
    if isinstance(broker, MemoryBroker):
        now = broker._clock()
        broker._clock = lambda: now + 7300
    else:
        assert isinstance(broker, RedisBroker)
        broker._redis.call("ZADD", "{queues}:shards", 0, f"{COUNT}:mail")
    assert lower.forget_unused("mail")
    assert lower.shards_of("mail") == SHARDS[:2]
    assert not lower.forget_unused("mail")


def test_numbers_that_can_t_be_are_not_believed(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    said = ("1000000:mail", "x:mail", "0:mail", "mail", "3:a:b", "1:one", b"\xff\xfe")
    client.zadd("{queues}:shards", dict.fromkeys(said, 1))
    assert redis_broker.remembered_shards() == {"mail": SHARDS_MOST, "a:b": 3}
    client.delete("{queues}:shards")
    client.set("{queues}:shards", "somebody else's")
    assert Sharded(redis_broker, {}).shards_of("mail") == ["mail"]


def test_new_shards_are_paused_like_their_queue(whole: Sharded) -> None:
    former = Sharded(whole.by_shard, {})
    pauses = [Pause("", "ada", "it moves", NOON), Pause("shop.x", "bob", "", NOON)]
    for pause in pauses:
        former.pause("mail", pause)
    former.revoke("mail", "id-1", 60, terminate=True)
    push(whole, *numbered(8))
    for name in SHARDS:
        assert whole.by_shard.paused(name) == pauses
        assert whole.by_shard.revoked(name, ["id-1"]) == [Revocation.TERMINATE]
        assert whole.by_shard.claim(name, "w1", 1, 9, LEASE).paused
    assert former.resume("mail")  # which has read before that there is one shard
    assert former.resume("mail", "shop.x")
    assert len(claim_all(whole)) == 8


# ------------------------------------------------------------------------------ operators


def test_it_is_paused_resumed_and_revoked_as_one(whole: Sharded) -> None:
    push(whole, *numbered(8))
    whole.pause("mail", Pause("", "ada", "", NOON))
    assert claim_all(whole) == []
    assert [pause.by for pause in whole.paused("mail")] == ["ada"]
    assert whole.resume("mail")
    assert not whole.resume("mail")
    whole.revoke("mail", "id-1", 60, terminate=False)
    assert [one.id for one in whole.revocations("mail", 10)] == ["id-1"]
    whole.unrevoke("mail", "id-1")
    assert all(whole.revoked(name, ["id-1"]) == [Revocation.NONE] for name in SHARDS)


@pytest.mark.parametrize("step", [1, 3, 50])
def test_what_waits_is_listed_in_pages(whole: Sharded, step: int) -> None:
    for name, sent in zip(SHARDS, (7, 0, 2, 4), strict=True):
        push(whole.by_shard, *(b"%d on %s" % (n, name.encode()) for n in range(sent)), queue=name)
    everything = whole.peek("mail", 0, 50)
    assert [one.raw[:1] for one in everything] == [b"%c" % c for c in b"0001112233456"]
    pages = [whole.peek("mail", start, step) for start in range(0, 15, step)]
    assert list(itertools.chain.from_iterable(pages)) == everything
    assert [one.raw for one in whole.browse("mail", due=False)] == [m.raw for m in everything]
    push(whole, *numbered(COUNT))
    assert len(whole.peek("mail", 0, 50)) == 17


def test_what_is_due_is_listed_in_pages(whole: Sharded) -> None:
    whole.push([Outgoing("mail", b"%d" % n, 0, 2e9 + n // 3) for n in range(12)])
    everything = whole.peek_due("mail", 50)
    assert [one.due for one in everything] == [2e9 + n // 3 for n in range(12)]
    assert whole.peek_due("mail", 4, 2e9 + 1, 2) == everything[5:9]
    assert whole.withdraw("mail", everything[:5]) == 5
    assert whole.stats("mail").due == 7
    assert whole.hasten("mail", everything[5].raw, 0)
    assert not whole.hasten("mail", b"gone", 0)


def test_what_is_in_flight_is_listed_in_pages(whole: Sharded) -> None:
    push(whole, *numbered(10))
    claim_all(whole)
    everything = whole.peek_in_flight("mail", 0, 50)
    assert len({one.raw for one in everything}) == 10
    pages = [whole.peek_in_flight("mail", start, 3) for start in range(0, 12, 3)]
    assert list(itertools.chain.from_iterable(pages)) == everything
    held = whole.held_by([(one.shard, one.consumer, [one.number]) for one in everything])
    assert held == [one.raw for one in everything]
    assert [(c.name, c.in_flight) for c in whole.consumers("mail")] == [("w1", 10)]
    assert whole.stats("mail") == (0, 10, 0, 0, 1)
    (said,) = whole.survey(["mail"])
    assert said.stats == (0, 10, 0, 0, 1)


@pytest.mark.parametrize("step", [1, 2, 50])
def test_dead_letters_are_listed_in_pages(whole: Sharded, step: int) -> None:
    for n in range(7):
        dead_on(whole.by_shard, SHARDS[n % COUNT], b"%d" % n)
    everything = whole.dead_letters("mail", 50)
    assert {letter.raw for letter in everything} == {b"%d" % n for n in range(7)}
    assert whole.stats("mail").dead == 7
    found, before = [], None
    while page := whole.dead_letters("mail", step, before):
        found += page
        before = page[-1].key
    assert found == everything
    for letter in everything:
        assert whole.dead_letter_at("mail", letter.key) == letter


def test_a_dead_letter_is_put_back_or_deleted(whole: Sharded) -> None:
    dead_on(whole.by_shard, SHARDS[0], b"a")
    dead_on(whole.by_shard, SHARDS[3], b"b")
    keys = {letter.raw: letter.key for letter in whole.dead_letters("mail", 9)}
    assert whole.requeue("mail", keys[b"b"], 0, b"again")
    assert not whole.requeue("mail", keys[b"b"])
    assert claim(whole.by_shard) == []
    assert claim_all(whole) == [b"again"]
    assert whole.discard("mail", keys[b"a"])
    assert not whole.discard("mail", "1-1.63")
    assert whole.dead_letter_at("mail", "1-1.x") is None


def test_everything_is_scanned(whole: Sharded) -> None:
    push(whole, *numbered(8))
    claim_all(whole, by="w9")
    push(whole, b"waits")
    whole.push([Outgoing("mail", b"due", 0, 2e9)])
    dead_on(whole.by_shard, SHARDS[2], b"dead")
    assert {*numbered(8), b"waits", b"due", b"dead"} <= set(whole.scan("mail"))


def test_notes_are_found_whichever_shard_has_the_call(whole: Sharded) -> None:
    whole.note("mail", [Note("id-1", About.PROGRESS, b"half")], 60)
    assert whole.noted("mail", "id-1", About.PROGRESS) == b"half"
    assert Sharded(whole.by_shard, {"mail": 9}).noted("mail", "id-1", About.PROGRESS) == b"half"


def test_numbers_are_those_of_all_shards(broker_url: str) -> None:
    for behind in (MemoryBroker(metrics=True), RedisBroker(broker_url, metrics=True)):
        whole = Sharded(behind, {"mail": COUNT})
        push(whole, *numbered(10))
        (found,) = whole.counts([Span("mail", Resolution.EVER, 0)])
        assert found.counts[SENT] == 10
        behind.close()
