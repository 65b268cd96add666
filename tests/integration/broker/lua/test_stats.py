import redis

from jobs.broker.scripts import STATS
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import CONSUMERS, DEAD, DUE, FAIR, LISTS

KEYS = (CONSUMERS, DUE, DEAD, FAIR, *LISTS)


def test_counts_what_a_queue_holds(run, now, client: redis.Redis):
    for count, name in enumerate(LISTS, 1):
        client.lpush(name, *range(count))
    client.zadd(DUE, {b"0|a": 1, b"0|b": 2})
    entry = client.xadd(DEAD, {"message": b"gone"})
    client.xadd(DEAD, {"message": b"here"})
    client.xdel(DEAD, entry)
    client.zadd(CONSUMERS, {"w1": 1_700_000_000_123, "w2": 5})
    client.hset("{mail}:inflight:w1", mapping={1: b"a", 2: b"b"})
    waiting, due, dead, server_now, *consumers = run(STATS, KEYS, "{mail}:inflight:")
    assert (waiting, due, dead) == (10, 2, 1)
    assert server_now == Since(now)
    assert consumers == [b"w2", b"5", 0, b"w1", b"1700000000123", 2]


def test_an_empty_queue(run, dump):
    waiting, due, dead, _, *consumers = run(STATS, KEYS, "{mail}:inflight:")
    assert (waiting, due, dead, consumers) == (0, 0, 0, [])
    assert dump() == {}
