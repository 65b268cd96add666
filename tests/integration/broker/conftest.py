"""The brokers under test: the contract's tests ask for `broker` and so run once for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from jobs.broker.base import Broker
from jobs.broker.memory import MemoryBroker
from jobs.broker.redis import RedisBroker
from tests.services import Valkey, ValkeyCluster


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    """A plain client of the emptied server, for looking at keys."""
    with redis.Redis.from_url(broker_url) as plain:
        yield plain


@pytest.fixture
def redis_broker(broker_url: str) -> Iterator[RedisBroker]:
    broker = RedisBroker(broker_url)
    yield broker
    broker.close()


@pytest.fixture
def sentinel_broker(sentinel_url: str) -> Iterator[RedisBroker]:
    broker = RedisBroker(sentinel_url)
    yield broker
    broker.close()


@pytest.fixture
def cluster_broker(cluster_url: str) -> Iterator[RedisBroker]:
    broker = RedisBroker(cluster_url)
    yield broker
    broker.close()


def _kinds() -> list[Any]:
    # What is special about the latter two has tests of its own, which run with every version.
    once = [pytest.param(kind, marks=pytest.mark.one_version) for kind in ("sentinel", "cluster")]
    return ["redis", "memory", *once]


@pytest.fixture(params=_kinds())
def broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "memory":
        return MemoryBroker()
    made: RedisBroker = request.getfixturevalue(f"{request.param}_broker")
    return made


@pytest.fixture
def asleep(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Callable[[], int]]:
    """How many threads are asleep in the broker's `wait` for the queue ``mail``."""
    if isinstance(broker, MemoryBroker):
        yield lambda: len(broker._changed._waiters)  # type: ignore[attr-defined]
        return
    if broker.address.startswith("redis+cluster"):
        cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
        with cluster.owner("mail").client() as node:
            yield lambda: node.info("clients")["blocked_clients"]
        return
    sentinel = broker.address.startswith("redis+sentinel")
    server = request.getfixturevalue("sentinel_trio" if sentinel else "valkey_server")
    with server.client() as plain:
        yield lambda: plain.info("clients")["blocked_clients"]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def lone_broker(own_valkey: Valkey) -> Iterator[RedisBroker]:
    """A broker on `own_valkey`, which the test may kill."""
    broker = RedisBroker(own_valkey.url, timeout=2)
    yield broker
    broker.close()
