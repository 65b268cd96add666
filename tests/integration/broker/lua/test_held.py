import redis

from jobs.broker.scripts import HELD
from tests.integration.broker.lua.keys import INFLIGHT


def test_says_for_each_whether_it_is_held(run, dump, client: redis.Redis):
    client.hset(INFLIGHT, mapping={1: b"a", 3: b""})
    before = dump()
    assert run(HELD, (INFLIGHT,), 3, 2, 1, 1) == [1, 0, 1, 1]
    assert dump() == before


def test_nobody_holds_anything(run, dump):
    assert run(HELD, (INFLIGHT,), 1, 2) == [0, 0]
    assert dump() == {}


def test_the_most_it_is_given(run, client: redis.Redis):
    client.hset(INFLIGHT, mapping=dict.fromkeys(range(0, 1000, 2), b"x"))
    assert run(HELD, (INFLIGHT,), *range(1000)) == [1, 0] * 500
