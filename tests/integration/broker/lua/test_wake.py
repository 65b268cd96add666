import redis

from jobs.broker.scripts import WAKE
from tests.integration.broker.lua.keys import BELL, DUE

KEYS = (DUE, BELL)


def test_makes_what_is_due_at_a_time_due_now(run, now: int, client: redis.Redis):
    client.zadd(DUE, {b"0|a": now + 60_000, b"0|b": now + 60_001, b"0|c": now + 60_002})
    assert run(WAKE, KEYS, now + 60_000) == 2
    assert now <= client.zscore(DUE, b"0|a") <= now + 10_000
    assert client.zscore(DUE, b"0|c") == now + 60_002
    assert client.llen(BELL) == 2


def test_what_is_due_already_keeps_its_time(run, now: int, client: redis.Redis):
    client.zadd(DUE, {b"0|a": now - 5})
    assert run(WAKE, KEYS, now - 5) == 0
    assert client.zscore(DUE, b"0|a") == now - 5


def test_nothing_is_there(run, dump, now: int):
    assert run(WAKE, KEYS, now + 60_000) == 0
    assert dump() == {}
