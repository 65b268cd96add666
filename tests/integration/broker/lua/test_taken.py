import redis

from jobs.broker.scripts import TAKEN

KEY = "{mail}:taken:w1"


def test_it_is_noted_for_so_long(run, client: redis.Redis):
    for _ in range(2):
        run(TAKEN, (KEY,), 60_000)
        assert client.exists(KEY)
        assert 0 < client.pttl(KEY) <= 60_000
