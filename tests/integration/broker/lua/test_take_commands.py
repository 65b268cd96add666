import redis

from jobs.broker.scripts import TAKE_COMMANDS
from tests.integration.broker.lua.keys import COMMANDS


def test_each_is_given_out_once(run, client: redis.Redis):
    client.rpush(COMMANDS, "quiet", "stop")
    assert run(TAKE_COMMANDS, (COMMANDS,)) == [b"quiet", b"stop"]
    assert run(TAKE_COMMANDS, (COMMANDS,)) == []
    assert not client.exists(COMMANDS)
