import redis

from jobs.broker.scripts import WAIT
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import HELD, WAITING


def wait(run, *triples, most=1):
    return run(WAIT, (HELD, WAITING), most, 10_000, *triples)


def test_until_one_is_free(run, dump, now, client: redis.Redis):
    client.zadd(HELD, {"a": now + 60_000})
    assert wait(run, now + 20_000, "mail", "b", now + 30_000, "mail", "c") == []
    assert dump()[WAITING] == {b"mail\6b": now + 20_000, b"mail\6c": now + 30_000}
    assert client.pttl(WAITING) > 60_000


def test_one_is_free_by_now(run, dump, now):
    due = b"%d" % (now + 20_000)
    answer = wait(run, due, "mail", "b", due, "mail", "c")
    assert answer == [b"mail\6b", due]
    assert dump()[HELD] == {b"b": Since(now, 10_000)}
    assert set(dump()[WAITING]) == {b"mail\6c"}


def test_its_own_is_its_own(run, dump, now, client: redis.Redis):
    client.zadd(HELD, {"b": now + 60_000})
    due = b"%d" % (now + 20_000)
    assert wait(run, due, "mail", "b") == [b"mail\6b", due]
    assert dump() == {HELD: {b"b": now + 60_000}}
