import redis

from jobs.broker.scripts import PARK
from tests.integration.broker.lua.keys import DUE, INFLIGHT, PAUSED

KEYS = (INFLIGHT, DUE, PAUSED)
PARKED = 8_000_000_000_000_000


def test_what_is_paused_is_put_among_the_due(run, now: int, client: redis.Redis):
    client.hset(PAUSED, "shop.x", "said")
    client.hset(INFLIGHT, mapping={"1": b"a", "2": b"b", "3": b"c"})
    assert run(PARK, KEYS, PARKED, 1, 0, "shop.x", 2, 4, "shop.y", 3, 4, "shop.x") == [b"1", b"3"]
    assert client.hgetall(INFLIGHT) == {b"2": b"b"}
    times = dict(client.zrange(DUE, 0, -1, withscores=True))
    assert times.keys() == {b"0|a", b"4|c"}
    assert all(PARKED + now <= time <= PARKED + now + 10_000 for time in times.values())


def test_what_is_not_held_any_more_is_left_alone(run, dump, client: redis.Redis):
    client.hset(PAUSED, mapping={"shop.x": "said", "": "said"})
    client.hset(INFLIGHT, mapping={"2": b"b"})
    before = dump()
    assert run(PARK, KEYS, PARKED, 1, 0, "shop.x") == []
    assert dump() == before
