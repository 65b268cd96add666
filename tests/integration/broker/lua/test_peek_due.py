import redis

from jobs.broker.scripts import PEEK_DUE
from tests.integration.broker.lua.keys import DUE


def test_begins_at_a_time_and_changes_nothing(run, dump, client: redis.Redis):
    client.zadd(DUE, {b"0|a": 5, b"0|b": 7, b"3|c": 7, b"0|d": 9})
    before = dump()
    assert run(PEEK_DUE, [DUE], 0, 0, 2) == [b"0|a", b"5", b"0|b", b"7"]
    assert run(PEEK_DUE, [DUE], 7, 0, 2) == [b"0|b", b"7", b"3|c", b"7"]
    assert run(PEEK_DUE, [DUE], 7, 1, 9) == [b"3|c", b"7", b"0|d", b"9"]
    assert run(PEEK_DUE, [DUE], 10, 0, 9) == []
    assert dump() == before


def test_nothing_is_due(run, dump):
    assert run(PEEK_DUE, [DUE], 9_999_999_999_999_999, 999_999_999, 9) == []
    assert dump() == {}
