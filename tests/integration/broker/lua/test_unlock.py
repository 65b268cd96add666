import pytest
import redis

from jobs.broker.scripts import UNLOCK
from tests.integration.broker.lua.keys import LOCK


@pytest.fixture(autouse=True)
def held(client: redis.Redis) -> None:
    client.set(LOCK, "a", px=60_000)


def unlock(run, who, how=""):
    return run(UNLOCK, (LOCK,), who, how)


def test_our_own(run, dump):
    assert unlock(run, "a") == b""
    assert unlock(run, "a") == b""
    assert dump() == {}


def test_another_s(run, dump):
    assert unlock(run, "b") == b"a"
    assert dump() == {LOCK: b"a"}


def test_a_trace_for_those_that_were_replaced(run, dump, client: redis.Redis):
    assert unlock(run, "a", "replace") == b""
    assert dump() == {LOCK: b"-a"}
    assert 0 < client.pttl(LOCK) <= 60_000
    assert unlock(run, "b", "replace") == b"a"
    assert unlock(run, "a", "replace") == b""
