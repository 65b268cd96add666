"""What is written to a connection, and read from it."""

import socket
from types import SimpleNamespace

import pytest
from hiredis import Reader, pack_command
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.broker.connection import NOT_ENOUGH_DATA, Ready, has_answer, said
from jobs.broker.scripts import PUSH


@pytest.mark.parametrize("raw", [b"", b"message", b"$0\r\n\r\n", b"\0\xff" * 5_000])
def test_a_ready_script_is_packed_as_any_other(raw: bytes) -> None:
    keys = ("mail\x06\x163", "{mäil}:bell")
    whole = pack_command((b"EVALSHA", PUSH.sha, len(keys), *keys, raw))  # type: ignore[arg-type]
    assert Ready(PUSH, keys).packed(raw) == whole


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
