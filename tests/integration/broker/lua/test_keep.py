import redis

from jobs.broker.scripts import KEEP
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import HELD


def test_holds_on_to_what_is_held(run, dump, now, client: redis.Redis):
    client.zadd(HELD, {"a": now + 5, "b": now + 5})
    run(KEEP, (HELD,), 60_000, "a", "lost")
    kept = dump()[HELD]
    assert kept == {b"a": Since(now, 60_000), b"b": now + 5}


def test_nothing_is_held(run, dump):
    run(KEEP, (HELD,), 60_000, "lost")
    assert dump() == {}
