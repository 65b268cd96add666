import pytest
import redis

from jobs.broker.scripts import FREE
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import HELD, WAITING


def free(run, *holders, most=1):
    return run(FREE, (HELD, WAITING), most, 10_000, *holders)


@pytest.fixture(autouse=True)
def ends(client: redis.Redis, now: int) -> int:
    client.zadd(HELD, {"a": now + 60_000})
    client.pexpire(HELD, 60_000)
    return now + 60_000


def wait(client: redis.Redis, now: int, **waiters: int) -> None:
    client.zadd(WAITING, {f"mail\6{who}": now + at for who, at in waiters.items()})
    client.pexpire(WAITING, 60_000)


def test_nobody_waits(run, dump):
    assert free(run, "a") == []
    assert dump() == {}


def test_it_is_kept_for_who_waits_longest(run, dump, now, client: redis.Redis):
    wait(client, now, second=20_000, first=10_000)
    waiter, at = free(run, "a")
    assert (waiter, int(at)) == (b"mail\6first", now + 10_000)
    assert dump()[HELD] == {b"first": Since(now, 10_000)}
    assert set(dump()[WAITING]) == {b"mail\6second"}


def test_freed_twice_is_freed_once(run, dump, now, client: redis.Redis):
    wait(client, now, second=20_000, first=10_000)
    free(run, "a")
    assert free(run, "a") == []
    assert set(dump()[HELD]) == {b"first"}


def test_there_are_fewer_than_before(run, dump, now, client: redis.Redis):
    client.zadd(HELD, {"b": now + 60_000, "c": now + 60_000})
    wait(client, now, first=10_000)
    assert free(run, "a", most=2) == []
    assert set(dump()[HELD]) == {b"b", b"c"}


def test_names_with_the_separator(run, dump, now, client: redis.Redis):
    wait(client, now, **{"a\6b": 10_000})
    free(run, "a")
    assert set(dump()[HELD]) == {b"a\6b"}
