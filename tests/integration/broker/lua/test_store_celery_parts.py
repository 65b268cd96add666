import redis

from jobs.broker.scripts import STORE_CELERY_PARTS

KEY = "celery-taskset-meta-group.j"


def test_keeps_each_at_its_place_for_so_long_or_for_ever(run, client: redis.Redis):
    run(STORE_CELERY_PARTS, (KEY,), 0, 1, "second", 0, "first")
    assert client.zrange(KEY, 0, -1, withscores=True) == [(b"first", 0), (b"second", 1)]
    assert client.ttl(KEY) == -1
    run(STORE_CELERY_PARTS, (KEY,), 60, 1, "second")
    assert client.zcard(KEY) == 2
    assert 50 < client.ttl(KEY) <= 60
