import redis

from jobs.broker.scripts import ACK_IN_CLUSTER
from tests.integration.broker.lua.keys import INFLIGHT


def test_removes_and_counts(run, dump, client: redis.Redis):
    client.hset(INFLIGHT, mapping={1: b"a", 2: b"b", 3: b"c"})
    assert run(ACK_IN_CLUSTER, (INFLIGHT,), "jobs:ended:", 3, 1, 1, 3, 3, 9, 9) == 2
    assert dump() == {INFLIGHT: {b"2": b"b"}}


def test_tells_of_ends_whoever_listens_here(run, client: redis.Redis):
    client.config_resetstat()
    assert run(ACK_IN_CLUSTER, (INFLIGHT,), "jobs:ended:", 1, 9, 9, "id-1", "id-2") == 0
    assert client.info("commandstats")["cmdstat_publish"]["calls"] == 2
