import redis

from jobs.broker.scripts import SLOTS
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import HELD, WAITING


def take(run, *pairs, most=1):
    return run(SLOTS, (HELD, WAITING), most, 60_000, 10_000, 50, 600_000, *pairs)


def test_as_many_as_there_are(run, dump, now, client: redis.Redis):
    answers = take(run, "mail", "a", "mail", "b", "mail", "c", "mail", "d", most=2)
    assert answers[:2] == [0, 0]
    assert answers[2] == Since(now, 10_000)
    assert answers[3] == answers[2] + 50
    assert set(client.zrange(HELD, 0, -1)) == {b"a", b"b"}
    assert WAITING not in dump()


def test_asking_twice_is_asking_once(run, dump):
    assert take(run, "mail", "a", "mail", "a", "mail", "b")[:2] == [0, 0]
    assert take(run, "mail", "a")[0] == 0
    assert set(dump()[HELD]) == {b"a"}


def test_who_asks_waits_no_longer(run, dump, now, client: redis.Redis):
    client.zadd(WAITING, {"mail\6a": now + 60_000})
    take(run, "mail", "a")
    assert WAITING not in dump()


def test_what_was_not_held_on_to_is_free(run, dump, now, client: redis.Redis):
    client.zadd(HELD, {"gone": now - 1})
    assert take(run, "mail", "a") == [0]
    assert set(dump()[HELD]) == {b"a"}


def test_the_longest_wait(run, now, client: redis.Redis):
    take(run, "mail", "a")
    client.zadd(WAITING, {f"mail\6{n}": now + 60_000 for n in range(20_000)})
    assert take(run, "mail", "b")[0] == Since(now, 600_000)


def test_who_gave_up_long_ago_is_forgotten(run, now, client: redis.Redis):
    client.zadd(WAITING, {"mail\6gone": now - 70_000, "mail\6late": now - 1_000})
    take(run, "mail", "a")
    assert client.zrange(WAITING, 0, -1) == [b"mail\6late"]
