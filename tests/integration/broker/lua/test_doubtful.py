import redis

from jobs.broker.scripts import COMPARE, DOUBTFUL

KEY = "{mail}:compared"


def server(client: redis.Redis) -> str:
    return client.info("server")["run_id"] + client.info("replication")["master_replid"]


def test_it_is_doubtful_until_it_was_compared_on_this_server(run, client: redis.Redis):
    assert run(DOUBTFUL, (KEY,)) == 1
    client.set(KEY, f"={server(client)}")
    assert run(DOUBTFUL, (KEY,)) == 0
    for said in (f"?{server(client)} w1", f"={'0' * 80}"):
        client.set(KEY, said)
        assert run(DOUBTFUL, (KEY,)) == 1
    assert client.keys() == [KEY.encode()]


def test_it_writes_nothing(run, client: redis.Redis):
    run(COMPARE, (KEY,), "w1", "begin", 60_000)
    said = client.get(KEY)
    run(DOUBTFUL, (KEY,))
    assert client.get(KEY) == said
