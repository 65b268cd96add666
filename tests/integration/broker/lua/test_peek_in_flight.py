import redis

from jobs.broker.scripts import PEEK_IN_FLIGHT
from tests.integration.broker.lua.keys import CONSUMERS

PREFIX = "{mail}:inflight:"


def test_looks_by_consumer_and_number_and_changes_nothing(run, dump, client: redis.Redis):
    client.zadd(CONSUMERS, {"w2": 1, "w1": 2, "idle": 3})
    client.hset(f"{PREFIX}w1", mapping={"10": b"c", "9": b"b"})
    client.hset(f"{PREFIX}w2", mapping={"1": b"d"})
    before = dump()
    every = [b"w1", b"9", b"b", b"w1", b"10", b"c", b"w2", b"1", b"d"]
    assert run(PEEK_IN_FLIGHT, [CONSUMERS], PREFIX, 0, 9) == every
    assert run(PEEK_IN_FLIGHT, [CONSUMERS], PREFIX, 1, 1) == every[3:6]
    assert run(PEEK_IN_FLIGHT, [CONSUMERS], PREFIX, 2, 9) == every[6:]
    assert run(PEEK_IN_FLIGHT, [CONSUMERS], PREFIX, 3, 9) == []
    assert dump() == before


def test_nothing_is_in_flight(run, dump):
    assert run(PEEK_IN_FLIGHT, [CONSUMERS], PREFIX, 0, 9) == []
    assert dump() == {}
