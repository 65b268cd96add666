import redis

from jobs.broker.scripts import RELEASE
from tests.integration.broker.lua.keys import BELL, FAIR, INFLIGHT, LISTS

KEYS = (INFLIGHT, BELL, FAIR, *LISTS)


def test_to_the_right_end_of_the_lists_of_their_priorities(run, dump, client: redis.Redis):
    client.hset(INFLIGHT, mapping={1: b"a", 2: b"b", 3: b"c"})
    client.lpush(LISTS[0], b"waits")
    assert run(RELEASE, KEYS, 3, 3, b"c2", 2, 0, b"", 1, 0, b"") == 3
    assert dump() == {
        LISTS[0]: [b"waits", b"b", b"a"],
        LISTS[3]: [b"c2"],
        BELL: [b"1", b"1", b"1"],
    }


def test_to_each_of_any_number_of_lists(run, dump, client: redis.Redis):
    lists = [f"list {n}" for n in range(10)]
    client.hset(INFLIGHT, mapping={n: b"%d" % n for n in range(10)})
    args = [value for n in range(10) for value in (n, n, b"")]
    run(RELEASE, (INFLIGHT, BELL, FAIR, *lists), *args)
    left = dump()
    assert [left[name] for name in lists] == [[b"%d" % n] for n in range(10)]


def test_what_is_not_held_stays_away(run, dump, client: redis.Redis):
    client.hset(INFLIGHT, 1, b"a")
    assert run(RELEASE, KEYS, 9, 0, b"x", 1, 0, b"", 1, 0, b"") == 1
    assert dump() == {LISTS[0]: [b"a"], BELL: [b"1"]}


def test_nothing_held_rings_for_nobody(run, dump):
    assert run(RELEASE, KEYS, 9, 0, b"") == 0
    assert dump() == {}
