import redis

from jobs.broker.scripts import PUSH_ONCE
from tests.integration.broker.lua.keys import LISTS, METRICS

HANDED = "{mail}:handed:id.0"
KEYS = (LISTS[0], HANDED)


def test_pushes_once_and_rings_no_bell(run, dump):
    run(PUSH_ONCE, KEYS, b"a")
    run(PUSH_ONCE, KEYS, b"a")
    assert dump() == {"mail": [b"a"], HANDED: b"1"}


def test_what_was_taken_is_not_pushed_again(run, client: redis.Redis):
    run(PUSH_ONCE, KEYS, b"a")
    client.rpop("mail")
    run(PUSH_ONCE, KEYS, b"a")
    assert client.llen("mail") == 0


def test_remembers_that_for_an_hour(run, client: redis.Redis):
    run(PUSH_ONCE, KEYS, b"a")
    assert 3_590_000 < client.pttl(HANDED) <= 3_600_000


def test_counts_what_it_pushes(run, now, dump):
    for _ in range(2):
        run(PUSH_ONCE, (*KEYS, METRICS), b"a")
    counts = dump()[f"{METRICS}sent"]
    assert list(counts.values()) == [b"1"]
