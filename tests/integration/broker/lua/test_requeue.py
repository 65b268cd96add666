import pytest
import redis

from jobs.broker.scripts import REQUEUE
from tests.integration.broker.lua.keys import BELL, DEAD, FAIR, LISTS

KEYS = (DEAD, LISTS[1], BELL, FAIR)


@pytest.fixture
def entry(client: redis.Redis) -> bytes:
    # A reason and a worker that are named like the field of the message.
    return client.xadd(DEAD, {"reason": "message", "worker": "message", "message": b"\xff\x00a"})


def test_moves_the_message_back_and_rings(run, dump, entry):
    assert run(REQUEUE, KEYS, entry, b"", 1) == 1
    assert dump() == {LISTS[1]: [b"\xff\x00a"], DEAD: [], BELL: [b"1"]}


def test_another_in_its_place(run, dump, entry):
    assert run(REQUEUE, KEYS, entry, b"\xfe\x00b", 1) == 1
    assert dump()[LISTS[1]] == [b"\xfe\x00b"]


def test_goes_to_the_end_of_the_queue(run, entry, client: redis.Redis):
    client.lpush(LISTS[1], b"waits")
    run(REQUEUE, KEYS, entry, b"", 1)
    assert client.rpop(LISTS[1]) == b"waits"


def test_others_stay(run, entry, client: redis.Redis):
    other = client.xadd(DEAD, {"reason": "", "worker": "", "message": b"b"})
    run(REQUEUE, KEYS, entry, b"", 1)
    assert [key for key, _ in client.xrange(DEAD)] == [other]


def test_does_nothing_when_it_is_gone(run, dump, entry, client: redis.Redis):
    client.xdel(DEAD, entry)
    assert run(REQUEUE, KEYS, entry, b"", 1) == 0
    assert dump() == {DEAD: []}


def test_a_full_bell_stays_full(run, entry, client: redis.Redis):
    client.lpush(BELL, *range(64))
    run(REQUEUE, KEYS, entry, b"", 1)
    assert client.llen(BELL) == 64
