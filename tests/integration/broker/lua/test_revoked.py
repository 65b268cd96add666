import redis

from jobs.broker.scripts import REVOKED as SCRIPT
from tests.integration.broker.lua.keys import REVOKED

KEYS = (REVOKED,)


def test_what_is_said_of_each(run, dump, now, client: redis.Redis):
    later = now + 60_000
    client.zadd(REVOKED, {"a": later, "b": later, "t:b": later})
    before = dump()
    assert run(SCRIPT, KEYS, "b", "x", "a", "b") == [2, 0, 1, 2]
    assert dump() == before


def test_what_is_over_is_said_no_more(run, now, client: redis.Redis):
    client.zadd(REVOKED, {"a": now - 1, "t:a": now - 1, "b": now + 60_000, "t:b": now - 1})
    assert run(SCRIPT, KEYS, "a", "b") == [0, 1]


def test_nothing_is_revoked(run, dump):
    assert run(SCRIPT, KEYS, "a") == [0]
    assert dump() == {}


def test_the_most_it_is_given(run):
    assert run(SCRIPT, KEYS, *range(1000)) == [0] * 1000
