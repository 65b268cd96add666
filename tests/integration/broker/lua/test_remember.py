import redis

from jobs.broker.scripts import REMEMBER
from tests.integration.broker.helpers import Since

KEYS = ("{queues}:known",)


def test_the_oldest_are_forgotten(run, now, client: redis.Redis):
    client.zadd(KEYS[0], {"old": 1, "older": 0, "again": 2})
    run(REMEMBER, KEYS, 3, "again", "new")
    (old, one), (again, two), (new, three) = client.zrange(KEYS[0], 0, -1, withscores=True)
    assert (old, again, new) == (b"old", b"again", b"new")
    assert one == 1
    assert two == three == Since(now)


def test_fewer_than_may_be_kept(run, client: redis.Redis):
    run(REMEMBER, KEYS, 1000, "one", "two")
    assert client.zcard(KEYS[0]) == 2
