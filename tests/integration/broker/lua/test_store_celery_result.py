import redis

from jobs.broker.scripts import STORE_CELERY_RESULT

KEY = "celery-task-meta-id-1"


def text(state: str, result: int = 1) -> bytes:
    return f'{{"status": "{state}", "result": {result}}}'.encode()


def test_keeps_it_for_so_long_or_for_ever(run, client: redis.Redis):
    assert run(STORE_CELERY_RESULT, (KEY,), text("FAILURE"), 60, 1) == 1
    assert client.get(KEY) == text("FAILURE")
    assert 50 < client.ttl(KEY) <= 60
    assert run(STORE_CELERY_RESULT, (KEY,), text("SUCCESS"), 0, 1) == 1
    assert client.ttl(KEY) == -1


def test_tells_those_who_wait(run, client: redis.Redis):
    with client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(KEY)
        heard.get_message(timeout=20)
        run(STORE_CELERY_RESULT, (KEY,), text("SUCCESS"), 60, 1)
        message = heard.get_message(timeout=20)
        assert message is not None
        assert message["data"] == text("SUCCESS")


def test_a_success_stays_and_so_does_an_end_when_the_call_is_said_to_run(run, client: redis.Redis):
    for first, then, ended, stored in (
        ("SUCCESS", "FAILURE", 1, 0),
        ("SUCCESS", "SUCCESS", 1, 0),
        ("FAILURE", "RETRY", 0, 0),
        ("REVOKED", "STARTED", 0, 0),
        ("FAILURE", "SUCCESS", 1, 1),
        ("STARTED", "RETRY", 0, 1),
    ):
        client.set(KEY, text(first))
        assert run(STORE_CELERY_RESULT, (KEY,), text(then, 2), 60, ended) == stored
        assert client.get(KEY) == (text(then, 2) if stored else text(first))
