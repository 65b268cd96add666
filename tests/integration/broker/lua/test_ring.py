import redis

from jobs.broker.scripts import RING
from tests.integration.broker.lua.keys import BELL


def test_rings(run, client: redis.Redis):
    run(RING, (BELL,))
    assert client.lrange(BELL, 0, -1) == [b"1"]
    assert 86_000 < client.ttl(BELL) <= 86_400


def test_a_bell_that_rings_enough(run, client: redis.Redis):
    client.lpush(BELL, *[1] * 63)
    run(RING, (BELL,))
    run(RING, (BELL,))
    assert client.llen(BELL) == 64
