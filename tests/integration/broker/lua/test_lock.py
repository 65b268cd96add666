import redis

from jobs.broker.scripts import LOCK as TAKE
from tests.integration.broker.lua.keys import LOCK


def take(run, who, how="", ms=60_000):
    return run(TAKE, (LOCK,), who, ms, how)


def test_the_first_has_it(run, dump):
    assert take(run, "a") == b""
    assert take(run, "b") == b"a"
    assert dump() == {LOCK: b"a"}


def test_taking_it_twice_is_for_longer(run, client: redis.Redis):
    take(run, "a", ms=5_000)
    assert take(run, "a", ms=60_000) == b""
    assert client.pttl(LOCK) > 5_000


def test_the_last_has_it_who_replaces(run, dump):
    take(run, "a")
    assert take(run, "b", "replace") == b""
    assert dump() == {LOCK: b"b"}


def test_what_was_given_up_is_free(run, dump, client: redis.Redis):
    client.set(LOCK, "-a", px=5_000)
    assert take(run, "b") == b""
    assert dump() == {LOCK: b"b"}


def test_kept_only_when_it_is_ours(run, dump, client: redis.Redis):
    assert take(run, "a", "keep") == b"-"
    assert dump() == {}
    take(run, "a", ms=5_000)
    assert take(run, "b", "keep") == b"a"
    assert take(run, "a", "keep") == b""
    assert client.pttl(LOCK) > 5_000
    client.set(LOCK, "-a", px=5_000)
    assert take(run, "a", "keep") == b"-"
