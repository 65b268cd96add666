import redis

from jobs.broker.scripts import RETAIN
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import CONSUMERS, INFLIGHT

OTHER = "{mail}:inflight:w2"
KEYS = (CONSUMERS, INFLIGHT, OTHER)


def test_who_holds_something_keeps_its_lease(run, now, client: redis.Redis):
    client.zadd(CONSUMERS, {"w1": 1, "w2": 2, "w3": 3})
    client.hset(INFLIGHT, 1, b"a")
    run(RETAIN, KEYS, 5_000, "w1", "w2")
    leases = dict(client.zrange(CONSUMERS, 0, -1, withscores=True))
    assert leases.pop(b"w1") == Since(now, 5_000)
    assert leases == {b"w3": 3}


def test_who_holds_something_becomes_known(run, now, client: redis.Redis):
    client.hset(OTHER, 1, b"a")
    run(RETAIN, KEYS, 5_000, "w1", "w2")
    assert client.zrange(CONSUMERS, 0, -1) == [b"w2"]
    assert client.zscore(CONSUMERS, "w2") == Since(now, 5_000)


def test_nobody_is_known(run, dump):
    run(RETAIN, KEYS, 5_000, "w1", "w2")
    assert dump() == {}
