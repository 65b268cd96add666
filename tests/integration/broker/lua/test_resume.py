import redis

from jobs.broker.scripts import RESUME
from tests.integration.broker.lua.keys import BELL, DUE, FAIR, LISTS, PAUSED

KEYS = (PAUSED, DUE, BELL, FAIR, *LISTS)
PARKED = 8_000_000_000_000_000


def test_a_queue(run, dump, now: int, client: redis.Redis):
    client.hset(PAUSED, mapping={"": "said", "shop.x": "said"})
    client.lpush(LISTS[3], b"a", b"b")
    client.zadd(DUE, {b"0|parked": PARKED + 5, b"0|later": now + 60_000})
    assert run(RESUME, KEYS, "", PARKED, 200) == [1, 0]
    left = dump()
    assert left[PAUSED] == {b"shop.x": b"said"}
    assert left[DUE] == {b"0|parked": PARKED + 5, b"0|later": now + 60_000}
    assert left[BELL] == [b"1"] * 4


def test_a_task_a_page_at_a_time(run, dump, now: int, client: redis.Redis):
    client.hset(PAUSED, "shop.x", "said")
    client.zadd(DUE, {b"0|%d" % n: PARKED + n for n in range(3)} | {b"0|later": now + 60_000})
    assert run(RESUME, KEYS, "shop.x", PARKED, 2) == [1, 2]
    assert dump()[DUE] == {b"0|0": 0, b"0|1": 1, b"0|2": PARKED + 2, b"0|later": now + 60_000}
    assert run(RESUME, KEYS, "shop.x", PARKED, 2) == [0, 1]
    assert PAUSED not in dump()


def test_a_full_bell_stays_full(run, client: redis.Redis):
    client.lpush(LISTS[0], *range(100))
    client.lpush(BELL, *range(60))
    run(RESUME, KEYS, "", PARKED, 200)
    assert client.llen(BELL) == 64


def test_nothing_to_come_for_wakes_nobody(run, dump):
    assert run(RESUME, KEYS, "", PARKED, 200) == [0, 0]
    assert dump() == {}
