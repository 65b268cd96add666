"""What is written to a connection, and read from it."""

import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hiredis import Reader, pack_command
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.broker.connection import (
    NOT_ENOUGH_DATA,
    Connections,
    Parser,
    Ready,
    has_answer,
    said,
)
from jobs.broker.scripts import PUSH
from jobs.exceptions import BrokerUnavailable


@pytest.mark.parametrize("raw", [b"", b"message", b"$0\r\n\r\n", b"\0\xff" * 5_000])
def test_a_ready_script_is_packed_as_any_other(raw: bytes) -> None:
    keys = ("mail\x06\x163", "{mäil}:bell")
    whole = pack_command((b"EVALSHA", PUSH.sha, len(keys), *keys, raw))  # type: ignore[arg-type]
    assert Ready(PUSH, keys).packed(raw) == whole


def test_a_connection_that_was_closed_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server may have its address by the time that there can be a new one."""
    redis, closed = Connections("redis://localhost:1/0", 1.0), []
    local = redis._threads.mine
    stale = SimpleNamespace(disconnect=lambda: closed.append(1))
    local.connection, local.pid, local.waiting, local.waiting_pid = (
        stale,
        os.getpid(),
        [stale],
        os.getpid(),
    )

    def refuse() -> Any:
        raise BrokerUnavailable("no server")

    monkeypatch.setattr(redis, "_new", refuse)
    monkeypatch.setattr("jobs.broker.connection._is_stale", lambda connection: True)
    with pytest.raises(BrokerUnavailable):
        redis.call("PING")
    with pytest.raises(BrokerUnavailable):
        redis.waiting(0)
    assert (redis.current, local.waiting, closed) == (None, [], [1, 1])


def test_answers_that_came_together_are_all_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5.0)
        parser = SimpleNamespace(_reader=Reader(notEnoughData=NOT_ENOUGH_DATA))
        connection = SimpleNamespace(_parser=parser, _sock=ours, socket_timeout=5.0)
        assert not has_answer(connection)
        theirs.sendall(b"+one\r\n+two\r\n+three\r\n")
        found = []
        while has_answer(connection):
            found.append(said(connection))
        assert found == [b"one", b"two", b"three"]
        theirs.close()
        assert has_answer(connection)
        with pytest.raises(RedisConnectionError):
            said(connection)
    connection._sock = None
    with pytest.raises(RedisConnectionError):
        has_answer(connection)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ASK 4247 127.0.0.1:7001", AskError),
        ("CLUSTERDOWN Hash slot not served", ClusterDownError),
        ("CROSSSLOT Keys in request don't hash to the same slot", ClusterCrossSlotError),
        ("MASTERDOWN Link with MASTER is down", MasterDownError),
        ("MOVED 4247 127.0.0.1:7001", MovedError),
        ("NOSCRIPT No matching script", NoScriptError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", TryAgainError),
    ],
)
def test_what_the_nodes_of_a_cluster_answer(text: str, kind: type[Exception]) -> None:
    """With every supported redis-py: version 5 alone has no classes for these."""
    error = Parser.parse_error(text)
    assert type(error) is kind
    assert str(error) == text.partition(" ")[2]
