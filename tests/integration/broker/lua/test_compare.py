import redis

from jobs.broker.scripts import COMPARE
from tests.integration.broker.lua.test_doubtful import KEY, server


def test_it_is_noted_who_compares_which_server(run, client: redis.Redis):
    assert run(COMPARE, (KEY,), "w1", "begin", 60_000) == 1
    assert client.get(KEY) == f"?{server(client)} w1".encode()
    assert 0 < client.pttl(KEY) <= 60_000
    assert run(COMPARE, (KEY,), "w1", "continue", 90_000) == 1
    assert 60_000 < client.pttl(KEY) <= 90_000
    assert run(COMPARE, (KEY,), "w1", "end", 10_000) == 1
    assert client.get(KEY) == f"={server(client)}".encode()
    assert 0 < client.pttl(KEY) <= 10_000


def test_what_another_has_begun_stays(run, client: redis.Redis):
    run(COMPARE, (KEY,), "w1", "begin", 60_000)
    said = client.get(KEY)
    for step in ("begin", "continue", "end"):
        assert run(COMPARE, (KEY,), "w", step, 60_000) == 0
        assert client.get(KEY) == said


def test_what_was_begun_on_another_server_is_over(run, client: redis.Redis):
    client.set(KEY, f"?{'0' * 80} w1")
    assert run(COMPARE, (KEY,), "w1", "end", 60_000) == 0
    assert run(COMPARE, (KEY,), "w2", "begin", 60_000) == 1
