import redis

from jobs.broker.scripts import DEAD_LETTER
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import DEAD, INFLIGHT

KEYS = (INFLIGHT, DEAD)


def test_moves_a_delivery_to_the_stream(run, dump, now, client: redis.Redis):
    raw = bytes(range(256))
    client.hset(INFLIGHT, mapping={1: raw, 2: b"b"})
    assert run(DEAD_LETTER, KEYS, 1, "why", "worker-1") == 1
    assert dump() == {
        INFLIGHT: {b"2": b"b"},
        DEAD: [{b"reason": b"why", b"worker": b"worker-1", b"message": raw}],
    }
    [(entry, _)] = client.xrange(DEAD)
    assert int(entry.partition(b"-")[0]) == Since(now)


def test_does_nothing_when_it_is_not_held(run, dump):
    assert run(DEAD_LETTER, KEYS, 1, "why", "worker-1") == 0
    assert dump() == {}
