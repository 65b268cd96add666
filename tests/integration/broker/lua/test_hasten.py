import redis

from jobs.broker.scripts import HASTEN
from tests.integration.broker.lua.keys import BELL, DUE

KEYS = (DUE, BELL)


def test_makes_a_due_message_due_now(run, dump, now: int, client: redis.Redis):
    client.zadd(DUE, {b"3|a": now + 60_000, b"3|b": now + 60_000})
    assert run(HASTEN, KEYS, b"3|a") == 1
    assert now <= client.zscore(DUE, b"3|a") <= now + 10_000
    assert client.zscore(DUE, b"3|b") == now + 60_000
    assert dump()[BELL] == [b"1"]


def test_keeps_the_time_of_what_was_due_before(run, now: int, client: redis.Redis):
    client.zadd(DUE, {b"0|a": now - 5})
    assert run(HASTEN, KEYS, b"0|a") == 1
    assert client.zscore(DUE, b"0|a") == now - 5


def test_does_nothing_when_it_does_not_wait(run, dump, now: int, client: redis.Redis):
    client.zadd(DUE, {b"3|a": now + 60_000})
    before = dump()
    assert run(HASTEN, KEYS, b"0|a") == 0
    assert dump() == before


def test_a_full_bell_stays_full(run, now: int, client: redis.Redis):
    client.zadd(DUE, {b"0|a": now + 60_000})
    client.lpush(BELL, *range(64))
    run(HASTEN, KEYS, b"0|a")
    assert client.llen(BELL) == 64
