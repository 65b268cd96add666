import redis

from jobs.broker.scripts import CLAIM
from tests.integration.broker.helpers import Since
from tests.integration.broker.lua.keys import (
    BELL,
    CLAIMED,
    CONSUMERS,
    DUE,
    FAIR,
    INFLIGHT,
    LISTS,
    PAUSED,
    PLACES,
    REVOKED,
)

KEYS = (INFLIGHT, CONSUMERS, REVOKED, CLAIMED, PAUSED, DUE, BELL, FAIR, *LISTS)


def claim(run, *, first=1, limit=10, lease=5_000):
    return run(CLAIM, KEYS, "w1", lease, first, limit, PLACES)


def test_into_flight_under_numbers(run, dump, client: redis.Redis):
    client.lpush(LISTS[0], b"a", b"b")
    client.lpush(LISTS[3], b"z")
    assert claim(run, first=7, limit=3) == [-1, 0, 0, b"a", b"b", b"z"]
    left = dump()
    del left[CONSUMERS]
    assert left.pop(CLAIMED) == b"10"
    assert left == {"{mail}:inflight:w1": {b"7": b"a", b"8": b"b", b"9": b"z"}}


def test_steps_are_emptied_in_turn(run, client: redis.Redis):
    for n, name in enumerate(LISTS):
        client.lpush(name, b"%d first" % n, b"%d second" % n)
    assert claim(run, limit=3) == [-1, 0, 0, b"0 first", b"0 second", b"1 first"]
    assert claim(run, limit=3, first=4) == [-1, 0, 0, b"1 second", b"2 first", b"2 second"]


def test_a_list_for_every_priority(run, client: redis.Redis):
    lists = ["mail", *(f"mail\x06\x16{n}" for n in range(1, 10))]
    client.lpush(lists[9], b"9 waits")
    client.zadd(DUE, {b"%d|%d" % (n, n): 1 for n in range(9)})
    keys = (*KEYS[: -len(LISTS)], *lists)
    assert run(CLAIM, keys, "w1", 5_000, 1, 100, "0123456789")[3:] == [
        *(b"%d" % n for n in range(9)),
        b"9 waits",
    ]


def test_one_list_for_all_priorities(run, client: redis.Redis):
    client.zadd(DUE, {b"9|first": 1, b"0|second": 2})
    keys = (*KEYS[: -len(LISTS)], LISTS[0])
    assert run(CLAIM, keys, "w1", 5_000, 1, 100, "0000000000")[3:] == [b"first", b"second"]


def test_a_lease_by_the_server_s_clock(run, now, client: redis.Redis):
    client.lpush(LISTS[0], b"a")
    claim(run, lease=5_000)
    assert client.zscore(CONSUMERS, "w1") == Since(now, 5_000)


def test_a_lease_is_given_once(run, client: redis.Redis):
    client.zadd(CONSUMERS, {"w1": 17})
    client.lpush(LISTS[0], b"a")
    claim(run)
    assert client.zscore(CONSUMERS, "w1") == 17


def test_what_is_due_is_promoted_behind_what_waits(run, dump, now, client: redis.Redis):
    client.lpush(LISTS[1], b"waits")
    client.zadd(DUE, {b"4|due": now - 1, b"5|overdue": 1, b"9|least": 2, b"0|later": now + 60_000})
    next_due, _, _, *messages = claim(run)
    assert messages == [b"waits", b"overdue", b"due", b"least"]
    assert 55_000 < next_due <= 60_000
    assert dump()[DUE] == {b"0|later": now + 60_000}


def test_a_message_that_looks_like_a_member(run, client: redis.Redis):
    client.zadd(DUE, {b"3|0|x": 1})
    assert claim(run) == [-1, 0, 0, b"0|x"]


def test_promotes_no_more_than_five_hundred_at_once(run, client: redis.Redis):
    client.zadd(DUE, {b"0|%d" % n: n for n in range(700)})
    assert claim(run, limit=1) == [0, 0, 0, b"0"]  # more is due at once
    assert client.zcard(DUE) == 200


def test_an_emptied_queue_stops_the_bell(run, client: redis.Redis):
    client.lpush(LISTS[0], b"a")
    client.lpush(BELL, 1, 1)
    claim(run, limit=1)  # may have left something
    assert client.llen(BELL) == 2
    claim(run, limit=1, first=2)
    assert client.exists(BELL) == 0


def test_the_most_it_is_given(run, client: redis.Redis):
    client.lpush(LISTS[0], *range(1_500))
    assert len(claim(run, limit=1_000)) == 1_003
    assert client.hlen(INFLIGHT) == 1_000


def test_a_repeated_claim_gives_again_what_is_held(run, dump, client: redis.Redis):
    client.lpush(LISTS[0], b"a", b"b", b"c")
    claim(run, limit=2)
    assert claim(run, limit=2) == [-1, 0, 0, b"a", b"b"]
    assert claim(run, limit=1) == [-1, 0, 0, b"a"]
    assert dump()[INFLIGHT] == {b"1": b"a", b"2": b"b"}
    assert client.lrange(LISTS[0], 0, -1) == [b"c"]


def test_a_repeated_claim_of_all_there_was(run, client: redis.Redis):
    client.lpush(LISTS[0], b"a", b"b")
    claim(run)
    assert claim(run) == [-1, 0, 0, b"a", b"b"]


def test_nothing_there_leaves_nothing(run, dump):
    assert claim(run) == [-1, 0, 0]
    assert dump() == {}


def test_tells_whether_anything_is_revoked(run, now, client: redis.Redis):
    client.lpush(LISTS[0], b"a", b"b")
    client.zadd(REVOKED, {"x": now - 1})
    assert claim(run, limit=1) == [-1, 0, 0, b"a"]
    client.zadd(REVOKED, {"y": now + 60_000, "t:y": now + 60_000})
    assert claim(run, limit=1, first=2) == [-1, 2, 0, b"b"]


def test_a_paused_queue_hands_nothing_out(run, dump, now, client: redis.Redis):
    client.hset(PAUSED, "", "said")
    client.lpush(LISTS[0], b"a")
    client.zadd(DUE, {b"0|due": now - 1})
    client.lpush(BELL, 1)
    before = dump()
    assert claim(run) == [-1, 0, -1]
    assert dump() == {key: value for key, value in before.items() if key != BELL}


def test_what_was_claimed_before_the_pause_is_given_again(run, client: redis.Redis):
    client.lpush(LISTS[0], b"a", b"b")
    claim(run, limit=1)
    client.hset(PAUSED, mapping={"": "said", "shop.tasks.x": "said"})
    assert claim(run, limit=1) == [-1, 0, 1, b"a"]


def test_how_many_tasks_are_paused(run, client: redis.Redis):
    client.hset(PAUSED, mapping={"shop.tasks.x": "said", "shop.tasks.y": "said"})
    client.lpush(LISTS[0], b"a")
    assert claim(run) == [-1, 0, 2, b"a"]
