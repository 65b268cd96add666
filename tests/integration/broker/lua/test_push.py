import redis

from jobs.broker.scripts import PUSH
from tests.integration.broker.lua.keys import BELL, LISTS, METRICS

KEYS = (LISTS[0], BELL)


def test_pushes_on_the_left_and_rings_for_each(run, dump):
    run(PUSH, KEYS, b"a", b"b")
    run(PUSH, KEYS, b"c")
    assert dump() == {"mail": [b"c", b"b", b"a"], "{mail}:bell": [b"1", b"1", b"1"]}


def test_what_celery_pops_is_the_oldest(run, client: redis.Redis):
    run(PUSH, KEYS, b"a", b"b")
    assert client.brpop(["mail"]) == (b"mail", b"a")


def test_the_most_it_is_given(run, client: redis.Redis):
    run(PUSH, KEYS, *[b"%d" % n for n in range(1000)])
    assert client.llen("mail") == 1000
    assert client.llen(BELL) == 64


def test_a_full_bell_stays_full(run, client: redis.Redis):
    client.lpush(BELL, *range(80))
    run(PUSH, KEYS, b"a")
    assert client.llen(BELL) == 80


def test_a_priority_s_list(run, dump):
    run(PUSH, (LISTS[3], BELL), b"a")
    assert dump() == {"mail\x06\x169": [b"a"], "{mail}:bell": [b"1"]}


def test_counts_what_it_pushes(run, now, dump):
    run(PUSH, (*KEYS, METRICS), b"a", b"b")
    run(PUSH, (*KEYS, METRICS), b"c")
    counts = dump()[f"{METRICS}sent"]
    assert counts in ({b"%d" % (now // 60_000): b"3"}, {b"%d" % (now // 60_000 + 1): b"1"})
