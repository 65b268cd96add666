import redis

from jobs.broker.scripts import RENEW
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import CONSUMERS


def test_extends_leases(run, now, client: redis.Redis):
    client.zadd(CONSUMERS, {"w1": 1, "w2": 2, "w3": 3})
    run(RENEW, (CONSUMERS,), 5_000, "w1", "w3")
    leases = dict(client.zrange(CONSUMERS, 0, -1, withscores=True))
    assert leases.pop(b"w1") == Since(now, 5_000)
    assert leases.pop(b"w3") == Since(now, 5_000)
    assert leases == {b"w2": 2}


def test_makes_the_unknown_known(run, now, client: redis.Redis):
    run(RENEW, (CONSUMERS,), 5_000, "w1")
    assert client.zscore(CONSUMERS, "w1") == Since(now, 5_000)
