import redis

from jobs.broker.scripts import PEEK
from tests.integration.broker.lua.keys import FAIR, LISTS

KEYS = (FAIR, *LISTS)


def test_looks_over_the_lists_and_changes_nothing(run, dump, client: redis.Redis):
    client.lpush(LISTS[0], b"a", b"b")
    client.lpush(LISTS[2], b"c", b"d", b"e")
    before = dump()
    assert run(PEEK, KEYS, 0, 3) == [b"a", 0, b"b", 0, b"c", 2]
    assert run(PEEK, KEYS, 3, 3) == [b"d", 2, b"e", 2]
    assert run(PEEK, KEYS, 1, 1) == [b"b", 0]
    assert run(PEEK, KEYS, 5, 3) == []
    assert run(PEEK, KEYS, 9_999_999_999_999_999, 3) == []
    assert dump() == before


def test_an_empty_queue(run, dump):
    assert run(PEEK, KEYS, 0, 10) == []
    assert dump() == {}
