import redis

from jobs.broker.scripts import REPORT
from tests.integration.broker.lua.keys import REPORTED, WORKERS


def test_it_is_kept_with_its_time(run, client: redis.Redis):
    run(REPORT, (WORKERS, REPORTED), "w", "busy", 60)
    first = client.zscore(REPORTED, "w")
    run(REPORT, (WORKERS, REPORTED), "w", "idle", 60)
    assert client.hgetall(WORKERS) == {b"w": b"idle"}
    seconds, micros = client.time()
    assert first <= client.zscore(REPORTED, "w") <= seconds * 1000 + micros / 1000
    assert 0 < client.ttl(WORKERS) <= 60
    assert 0 < client.ttl(REPORTED) <= 60


def test_one_is_deleted_with_its_time(run, client: redis.Redis):
    for name in ("one", "two"):
        run(REPORT, (WORKERS, REPORTED), name, "busy", 60)
    run(REPORT, (WORKERS, REPORTED), "one")
    assert client.hkeys(WORKERS) == [b"two"]
    assert client.zrange(REPORTED, 0, -1) == [b"two"]
