"""Each script against the real server: what it does to which key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import redis

from jobs.broker.scripts import Script

Run = Callable[..., Any]


@pytest.fixture
def run(client: redis.Redis) -> Run:
    def call(script: Script, keys: Sequence[str], *args: str | bytes | float) -> Any:
        return client.eval(script.text, len(keys), *keys, *args)

    return call


@pytest.fixture
def dump(client: redis.Redis) -> Callable[[], dict[str, Any]]:
    """Everything on the server: key → its value, each in the shape of its type."""

    def everything() -> dict[str, Any]:
        keys = cast("list[bytes]", client.keys("*"))
        return {key.decode(): _value(client, key) for key in keys}

    return everything


def _value(client: redis.Redis, key: bytes) -> Any:
    # Which number is next is of use only as long as a call can be late; notes are hints; what is
    # known of a limit goes by itself when it says nothing any more.
    passing = (
        *(b":claimed:", b":progress:", b":position:", b"{limit:", b"{unique:"),
        *(b":workers", b":metrics:", b":handed:"),
    )
    vanishes = any(kind in key for kind in passing)
    if not key.endswith((b":revoked", b":bell")):  # tests write these by hand as well
        assert (client.ttl(key) > -1) is vanishes, f"{key!r} would vanish, or would not"
    kind = client.type(key)
    if kind == b"string":
        return client.get(key)
    if kind == b"list":
        return client.lrange(key, 0, -1)
    if kind == b"hash":
        return client.hgetall(key)
    if kind == b"zset":
        return dict(cast("Any", client.zrange(key, 0, -1, withscores=True)))
    if kind == b"stream":
        return [fields for _, fields in cast("Any", client.xrange(key))]
    raise AssertionError(f"{key!r} is a {kind!r}")


@pytest.fixture
def now(client: redis.Redis) -> int:
    """The server's clock in milliseconds."""
    seconds, micros = client.time()
    return int(seconds * 1000 + micros // 1000)
