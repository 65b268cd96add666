import redis

from jobs.broker.scripts import ACK
from tests.integration.broker.lua.keys import INFLIGHT


def test_removes_and_counts(run, dump, client: redis.Redis):
    client.hset(INFLIGHT, mapping={1: b"a", 2: b"b", 3: b"c"})
    assert run(ACK, (INFLIGHT,), "jobs:ended:", 3, 1, 1, 3, 3, 9, 9) == 2
    assert dump() == {INFLIGHT: {b"2": b"b"}}


def test_nothing_is_left_of_the_last(run, dump, client: redis.Redis):
    client.hset(INFLIGHT, 1, b"a")
    assert run(ACK, (INFLIGHT,), "jobs:ended:", 1, 1, 1) == 1
    assert dump() == {}


def test_tells_of_ends_whether_held_or_not(run, client: redis.Redis):
    with client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe("*")
        heard.get_message(timeout=5)
        assert run(ACK, (INFLIGHT,), "p:jobs:ended:", 1, 9, 9, "id-1", "id-2") == 0
        channels = [heard.get_message(timeout=5)["channel"] for _ in range(2)]
    assert channels == [b"p:jobs:ended:id-1", b"p:jobs:ended:id-2"]


def test_tells_those_who_wait_and_sends_nothing_else(run, client: redis.Redis):
    with client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("jobs:ended:id-2")
        heard.get_message(timeout=5)
        client.config_resetstat()
        assert run(ACK, (INFLIGHT,), "jobs:ended:", 0, "id-1", "id-2", "id-3") == 0
        assert heard.get_message(timeout=5)["channel"] == b"jobs:ended:id-2"
    assert client.info("commandstats")["cmdstat_publish"]["calls"] == 1


def test_tells_everybody_where_it_may_not_ask(run, client: redis.Redis):
    client.execute_command("ACL", "SETUSER", "default", "-pubsub")
    try:
        with client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.subscribe("jobs:ended:id-2")
            heard.get_message(timeout=5)
            assert run(ACK, (INFLIGHT,), "jobs:ended:", 0, "id-1", "id-2") == 0
            assert heard.get_message(timeout=5)["channel"] == b"jobs:ended:id-2"
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")


def test_numbers_and_ends_are_told_apart(run, client: redis.Redis):
    client.hset(INFLIGHT, mapping={1: b"a", 2: b"b"})
    assert run(ACK, (INFLIGHT,), "jobs:ended:", 1, 1, 1, "2") == 1
    assert client.hkeys(INFLIGHT) == [b"2"]


def test_removes_ranges(run, client: redis.Redis):
    client.hset(INFLIGHT, mapping=dict.fromkeys(range(1, 9), b"x"))
    assert run(ACK, (INFLIGHT,), "jobs:ended:", 2, 2, 4, 7, 12) == 5
    assert client.hkeys(INFLIGHT) == [b"1", b"5", b"6"]


def test_the_most_it_is_given(run, client: redis.Redis):
    client.hset(INFLIGHT, mapping=dict.fromkeys(range(3_000), b"x"))
    single = [number for n in range(0, 2_000, 2) for number in (n, n)]
    assert run(ACK, (INFLIGHT,), "jobs:ended:", 1_000, *single) == 1_000
    assert run(ACK, (INFLIGHT,), "jobs:ended:", 1, 2_000, 2_999) == 1_000
    assert run(ACK, (INFLIGHT,), "jobs:ended:", 0, *[f"id-{n}" for n in range(1_000)]) == 0
