import redis

from jobs.broker.scripts import SCHEDULE
from tests.integration.broker.lua.keys import BELL, DUE

KEYS = (DUE, BELL)


def test_scores_are_due_times_and_one_bell_tells_of_them(run, dump):
    run(SCHEDULE, KEYS, 1_700_000_000_001, b"0|a", 1_700_000_000_002, b"9|b")
    assert dump() == {
        "{mail}:due": {b"0|a": 1_700_000_000_001.0, b"9|b": 1_700_000_000_002.0},
        "{mail}:bell": [b"1"],
    }


def test_the_same_message_waits_once_with_its_newest_time(run, dump):
    run(SCHEDULE, KEYS, 1, b"0|a")
    run(SCHEDULE, KEYS, 2, b"0|a")
    assert dump()["{mail}:due"] == {b"0|a": 2.0}


def test_the_most_it_is_given(run, client: redis.Redis):
    run(SCHEDULE, KEYS, *[value for n in range(500) for value in (n, b"0|%d" % n)])
    assert client.zcard(DUE) == 500


def test_a_full_bell_stays_full(run, client: redis.Redis):
    client.lpush(BELL, *range(64))
    run(SCHEDULE, KEYS, 1, b"0|a")
    assert client.llen(BELL) == 64
