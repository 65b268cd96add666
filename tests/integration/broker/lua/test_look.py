import redis

from jobs.broker.scripts import LOOK
from tests.integration.broker.lua.keys import FAIR, LISTS, PAUSED

WORKERS = "{mail}:workers"
KEYS = (PAUSED, WORKERS, FAIR, *LISTS)


def test_what_it_reads(run, dump, client: redis.Redis):
    client.hset(PAUSED, "a.task", b"{}")
    client.hset(WORKERS, "w", b"report")
    client.expire(WORKERS, 60)
    client.lpush(LISTS[0], b"next", b"last")
    client.lpush(LISTS[2], b"too long")
    before = dump()
    assert run(LOOK, KEYS, 4) == [[b"a.task", b"{}"], [b"w", b"report"], [b"next"]]
    assert dump() == before


def test_an_empty_queue(run, dump):
    assert run(LOOK, KEYS, 4) == [[], [], []]
    assert dump() == {}
