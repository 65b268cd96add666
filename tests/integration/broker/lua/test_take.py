import redis

from jobs.broker.scripts import TAKE
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import CONSUMERS, FAIR, INFLIGHT, LISTS, PAUSED

KEYS = (INFLIGHT, CONSUMERS, FAIR, *LISTS)


def take(run, *, first=1, limit=10):
    return run(TAKE, KEYS, "w1", 5_000, first, limit)


def test_what_waits_in_the_order_of_a_claim(run, now: int, client: redis.Redis):
    client.hset(PAUSED, "", "said")
    client.lpush(LISTS[0], b"a", b"b")
    client.lpush(LISTS[2], b"c", b"d")
    assert take(run, first=7, limit=3) == [b"a", 0, b"b", 0, b"c", 2]
    assert client.hgetall(INFLIGHT) == {b"7": b"a", b"8": b"b", b"9": b"c"}
    assert client.zscore(CONSUMERS, "w1") == Since(now, 5_000)
    assert take(run, first=10) == [b"d", 2]


def test_nothing_leaves_nothing(run, dump):
    assert take(run) == []
    assert dump() == {}
