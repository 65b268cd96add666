"""How the supervisor starts children, where the system or the fork server doesn't do its part."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from jobs.worker.supervisor import starting
from jobs.worker.supervisor.starting import Forked, ForkServer, Leftover, Starter

pytestmark = pytest.mark.skipif(not starting.can_fork(), reason="needs Linux")


@pytest.fixture
def link() -> Iterator[tuple[ForkServer, socket.socket]]:
    """A fork server that is a process which does nothing, and its end of the link."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=[
        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)])  # fmt: skip
    server = ForkServer(Forked(pid), ours)
    with theirs:
        yield server, theirs
    server.end()


def ask(server: ForkServer) -> Forked:
    read, write = os.pipe()
    try:
        return server.fork("here/1", read, write, "{}")
    finally:
        os.close(read)
        os.close(write)


def test_it_answers(link: tuple[ForkServer, socket.socket]) -> None:
    server, theirs = link
    theirs.send(json.dumps({"pid": 4711}).encode())
    assert ask(server).pid == 4711


def test_what_it_says_is_raised(link: tuple[ForkServer, socket.socket]) -> None:
    server, theirs = link
    theirs.send(json.dumps({"error": "no process left"}).encode())
    with pytest.raises(OSError, match="no process left"):
        ask(server)
    theirs.send(json.dumps({"leftover": "a socket is open"}).encode())
    with pytest.raises(Leftover, match="a socket is open"):
        ask(server)


def test_one_that_does_not_answer_is_killed(
    link: tuple[ForkServer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = link
    server._link.settimeout(0.01)
    with pytest.raises(OSError, match="hasn't answered"):
        ask(server)
    assert server.process.wait() == -signal.SIGKILL


def test_a_system_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(option: int, value: object) -> None:
        raise OSError("not permitted")

    monkeypatch.setattr(starting, "prctl", refuse)
    assert not Starter(preload=True).preload
    monkeypatch.undo()
    monkeypatch.setattr(starting.sys, "platform", "darwin")
    assert not Starter(preload=True).preload


def test_the_status_of_a_fork() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    forked = Forked(pid)
    assert forked.wait() == 3
    assert forked.wait() == 0  # somebody else has waited for it
    forked.send_signal(signal.SIGTERM)
