import redis

from jobs.broker.scripts import PICK
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import CONSUMERS, FAIR, INFLIGHT, LISTS

KEYS = (INFLIGHT, CONSUMERS, FAIR, LISTS[1])


def test_one_that_waits(run, now: int, client: redis.Redis):
    client.lpush(LISTS[1], b"a", b"b", b"a")
    assert run(PICK, KEYS, "w1", 5_000, 1, b"a", 1) == 1
    assert client.lrange(LISTS[1], 0, -1) == [b"a", b"b"]  # of two alike, the next
    assert client.hgetall(INFLIGHT) == {b"1": b"a"}
    assert client.zscore(CONSUMERS, "w1") == Since(now, 5_000)


def test_one_that_is_not_there(run, dump, client: redis.Redis):
    client.lpush(LISTS[1], b"b")
    before = dump()
    assert run(PICK, KEYS, "w1", 5_000, 1, b"a", 1) == 0
    assert dump() == before
