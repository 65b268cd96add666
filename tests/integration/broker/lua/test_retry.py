import redis

from jobs.broker.scripts import RETRY
from tests.integration.broker.lua.keys import BELL, DUE, INFLIGHT

KEYS = (INFLIGHT, DUE, BELL)


def test_swaps_a_delivery_for_a_due_message(run, dump, client: redis.Redis):
    client.hset(INFLIGHT, mapping={1: b"a", 2: b"b"})
    assert run(RETRY, KEYS, 1, 1_700_000_000_001, b"3|a2") == 1
    assert dump() == {
        INFLIGHT: {b"2": b"b"},
        DUE: {b"3|a2": 1_700_000_000_001.0},
        BELL: [b"1"],
    }


def test_does_nothing_when_it_is_not_held(run, dump):
    assert run(RETRY, KEYS, 1, 5, b"0|a2") == 0
    assert dump() == {}


def test_a_full_bell_stays_full(run, client: redis.Redis):
    client.hset(INFLIGHT, 1, b"a")
    client.lpush(BELL, *range(64))
    run(RETRY, KEYS, 1, 5, b"0|a")
    assert client.llen(BELL) == 64
