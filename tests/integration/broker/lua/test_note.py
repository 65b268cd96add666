import redis

from jobs.broker.scripts import NOTE
from tests.integration.broker.lua.keys import PROGRESS


def test_keeps_the_last_one_for_so_long(run, dump, client: redis.Redis):
    run(NOTE, (PROGRESS,), 5_000, "half", "")
    run(NOTE, (PROGRESS,), 60_000, "all", "")
    assert dump() == {PROGRESS: b"all"}
    assert 50_000 < client.pttl(PROGRESS) <= 60_000


def test_tells_those_who_listen(run, client: redis.Redis):
    with client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe("*")
        heard.get_message(timeout=20)
        run(NOTE, (PROGRESS,), 60_000, "half", "")
        run(NOTE, (PROGRESS,), 60_000, "half", "jobs:progress:id-1")
        message = heard.get_message(timeout=5)
        assert message is not None
        assert message["channel"] == b"jobs:progress:id-1"
        assert heard.get_message(timeout=0.05) is None
