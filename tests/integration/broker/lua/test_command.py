import redis

from jobs.broker.scripts import COMMAND
from tests.integration.broker.lua.keys import COMMANDS


def test_the_last_ones_are_kept_for_a_while(run, client: redis.Redis):
    for n in range(5):
        run(COMMAND, (COMMANDS,), f"command {n}", 3, 60_000)
    assert client.lrange(COMMANDS, 0, -1) == [b"command 2", b"command 3", b"command 4"]
    assert 0 < client.pttl(COMMANDS) <= 60_000
