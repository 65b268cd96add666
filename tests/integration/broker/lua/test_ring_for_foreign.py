import redis

from jobs.broker.scripts import RING_FOR_FOREIGN
from tests.integration.broker.lua.keys import BELL, LISTS, PAUSED

KEYS = (BELL, PAUSED, *LISTS)


def test_a_ring_for_each_message(run, client: redis.Redis):
    assert run(RING_FOR_FOREIGN, KEYS) == 0
    assert not client.exists(BELL)
    client.lpush(LISTS[0], "a", "b")
    client.lpush(LISTS[2], "c")
    client.lpush(BELL, 1)  # rings already
    assert run(RING_FOR_FOREIGN, KEYS) == 3
    assert client.llen(BELL) == 3
    assert 86_000 < client.ttl(BELL) <= 86_400
    assert client.lrange(LISTS[0], 0, -1) == [b"b", b"a"]


def test_at_most_64(run, client: redis.Redis):
    client.lpush(LISTS[0], *range(100))
    for _ in range(2):
        assert run(RING_FOR_FOREIGN, KEYS) == 100
    assert client.llen(BELL) == 64


def test_a_paused_queue_is_quiet(run, client: redis.Redis):
    client.lpush(LISTS[0], "a")
    client.hset(PAUSED, "", "{}")
    assert run(RING_FOR_FOREIGN, KEYS) == 1
    assert not client.exists(BELL)
