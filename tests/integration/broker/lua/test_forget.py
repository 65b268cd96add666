import redis

from jobs.broker.scripts import FORGET
from tests.integration.broker.lua.keys import CONSUMERS, INFLIGHT

KEYS = (INFLIGHT, CONSUMERS)


def test_forgets_who_holds_nothing(run, dump, client: redis.Redis):
    client.zadd(CONSUMERS, {"w1": 1, "w2": 2})
    assert run(FORGET, KEYS, "w1") == 1
    assert dump() == {CONSUMERS: {b"w2": 2}}


def test_keeps_who_holds_something(run, dump, client: redis.Redis):
    client.zadd(CONSUMERS, {"w1": 1})
    client.hset(INFLIGHT, 1, b"a")
    assert run(FORGET, KEYS, "w1") == 0
    assert dump() == {CONSUMERS: {b"w1": 1}, INFLIGHT: {b"1": b"a"}}


def test_the_unknown(run, dump):
    assert run(FORGET, KEYS, "w1") == 0
    assert dump() == {}
