import redis

from jobs.broker.scripts import HOLD_AGAIN
from tests.integration.broker.lua.keys import CLAIMED, CONSUMERS, INFLIGHT

TAKEN = "{mail}:taken:w1"
KEYS = (INFLIGHT, TAKEN, CONSUMERS, CLAIMED)


def test_what_is_missing_is_added(run, client: redis.Redis, now: int):
    client.hset(INFLIGHT, "1", "kept")
    assert run(HOLD_AGAIN, KEYS, "w1", 5_000, 4, 1, "a", 3, "c") == 1
    assert client.hgetall(INFLIGHT) == {b"1": b"kept", b"3": b"c"}
    assert now + 4_000 < client.zscore(CONSUMERS, "w1") < now + 10_000
    assert client.get(CLAIMED) == b"4"
    assert client.ttl(CLAIMED) > 0


def test_a_lease_and_a_later_number_stay(run, client: redis.Redis):
    client.zadd(CONSUMERS, {"w1": 7})
    client.set(CLAIMED, 9)
    assert run(HOLD_AGAIN, KEYS, "w1", 5_000, 4, 3, "c") == 1
    assert client.zscore(CONSUMERS, "w1") == 7
    assert client.get(CLAIMED) == b"9"


def test_nothing_is_added_to_what_was_taken_away(run, client: redis.Redis):
    client.set(TAKEN, 1)
    assert run(HOLD_AGAIN, KEYS, "w1", 5_000, 4, 3, "c") == 0
    assert client.keys() == [TAKEN.encode()]
