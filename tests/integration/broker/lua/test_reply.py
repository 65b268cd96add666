import redis

from jobs.broker.scripts import REPLY

LIST = "an-id.reply.celery.pidbox"


def test_an_answer_is_kept_for_a_while(run, client: redis.Redis):
    assert run(REPLY, (LIST,), "first", 10, 60) == 1
    assert run(REPLY, (LIST,), "second", 10, 60) == 1
    assert client.lrange(LIST, 0, -1) == [b"second", b"first"]
    assert 0 < client.ttl(LIST) <= 60


def test_a_client_that_takes_none_gets_no_more(run, client: redis.Redis):
    client.rpush(LIST, "first", "second")
    assert run(REPLY, (LIST,), "third", 2, 60) == 0
    assert client.lrange(LIST, 0, -1) == [b"first", b"second"]
