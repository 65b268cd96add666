import redis

from jobs.broker.scripts import NOTE_GONE
from tests.integration.broker.lua.keys import GONE, REPORTED, WORKERS

KEYS = (GONE, WORKERS, REPORTED)


def test_the_newest_first_and_no_more_than_that(run, client: redis.Redis):
    for n in range(5):
        assert run(NOTE_GONE, KEYS, f"child {n}", "", 3, 60) == 1
    assert client.lrange(GONE, 0, -1) == [b"child 4", b"child 3", b"child 2"]
    assert 0 < client.ttl(GONE) <= 60


def test_the_end_of_a_worker_is_noted_once(run, client: redis.Redis):
    client.hset(WORKERS, "w", "busy")
    client.zadd(REPORTED, {"w": 1})
    assert run(NOTE_GONE, KEYS, "lost", "w", 3, 60) == 1
    assert run(NOTE_GONE, KEYS, "lost", "w", 3, 60) == 0
    assert client.lrange(GONE, 0, -1) == [b"lost"]
    assert not client.exists(WORKERS, REPORTED)
