import redis

from jobs.broker.scripts import FORGET_SHARDS

KEYS = ("{queues}:shards",)
HOUR = 3_600_000


def test_only_what_nobody_has_repeated_is_forgotten(run, now, client: redis.Redis):
    client.zadd(KEYS[0], {"8:mail": now - 2 * HOUR, "4:mail": now - HOUR / 2, "8:post": 0})
    assert run(FORGET_SHARDS, KEYS, HOUR, "4:mail", "8:mail", "9:mail") == 0  # 4 is in use
    assert client.zrange(KEYS[0], 0, -1) == [b"8:post", b"4:mail"]


def test_it_says_when_all_of_them_are_forgotten(run, now, client: redis.Redis):
    client.zadd(KEYS[0], {"8:mail": 0, "4:mail": 1, "2:mail": now})
    assert run(FORGET_SHARDS, KEYS, HOUR, "3:mail", "4:mail", "8:mail") == 1
    assert client.zrange(KEYS[0], 0, -1) == [b"2:mail"]
    assert run(FORGET_SHARDS, KEYS, HOUR, "3:mail", "4:mail", "8:mail") == 0  # there were none
