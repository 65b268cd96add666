import redis

from jobs.broker.scripts import REVOKE
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import REVOKED

KEYS = (REVOKED,)


def test_remembers_by_the_server_s_clock(run, dump, now):
    run(REVOKE, KEYS, "id-1", 60_000, "")
    assert dump() == {REVOKED: {b"id-1": Since(now, 60_000)}}


def test_to_terminate_is_remembered_besides(run, dump, now):
    run(REVOKE, KEYS, "id-1", 60_000, "t")
    until = Since(now, 60_000)
    assert dump() == {REVOKED: {b"id-1": until, b"t:id-1": until}}


def test_said_again_it_is_remembered_longer(run, now, client: redis.Redis):
    run(REVOKE, KEYS, "id-1", 1_000, "t")
    run(REVOKE, KEYS, "id-1", 60_000, "")
    assert client.zscore(REVOKED, "id-1") == Since(now, 60_000)
    assert client.zscore(REVOKED, "t:id-1") is not None  # not taken back by that


def test_what_was_remembered_long_enough_is_forgotten(run, now, client: redis.Redis):
    client.zadd(REVOKED, {"old": now - 1, "t:old": now - 1, "young": now + 60_000})
    run(REVOKE, KEYS, "id-1", 60_000, "")
    assert set(client.zrange(REVOKED, 0, -1)) == {b"id-1", b"young"}
