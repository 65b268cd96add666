"""One connection a thread to Redis, and its errors in our words.

redis-py's client takes a connection from its pool, and gives it back, at every command; holding
one for each thread is a fifth faster for a single send. Nothing is sent a second time here:
whether that is safe is for the caller to say.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import redis
from hiredis import pack_command
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from jobs.broker.base import Subscription
from jobs.broker.scripts import Script
from jobs.conf import address
from jobs.exceptions import BrokerUnavailable, ConfigurationError, QueueRefused

#: Answers of a server that is there and can't do it now; a later try may succeed.
#: redis-py cuts the code off the text of those it has a class for.
_PASSING = (
    ReadOnlyError,
    OutOfMemoryError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
)
_PASSING_TEXTS = ("MISCONF", "BUSY ", "NOREPLICAS", "UNBLOCKED", "DB index")

#: Answers of a server that is not, or no longer, the one to write to. Another one may have its
#: name or address by now, which only a new connection finds.
_MOVED = (ReadOnlyError, MasterDownError)

#: Seconds that a caller waits who can do without an answer: see `Connections.briefly`.
_BRIEF = 1.0
#: Seconds for which such callers don't ask a server that has left somebody without an answer.
_SILENT = 3.0

#: A connection that was idle for longer, in seconds, is looked at before it is used.
_IDLE = 0.02

#: What an error's text contains, in lower case → what to do about it.
_ADVICE = {
    "certificate_verify_failed": (
        "Its certificate is not trusted: in JOBS['BROKER_URL'], name the file of the authority "
        "that signed it by ?ssl_ca_certs=, and the server by the name it was made for."
    ),
    "no permissions": (
        "Give the user its rights (ACL SETUSER); the documentation on deployment lists them."
    ),
    "wrongtype": (
        "Something that is not this program's has its name: look at it (TYPE, KEYS), and rename or "
        "delete it."
    ),
    "db index": (
        "The server has fewer databases than the number in JOBS['BROKER_URL']: use a lower one, or "
        "raise its setting `databases`."
    ),
    "invalid username-password": "Check user and password in JOBS['BROKER_URL'].",
}

_Arg = bytes | str | int | float
_Command = tuple[_Arg, ...]

# The stub says that a command has one argument.
_pack = cast(Callable[[_Command], bytes], pack_command)

#: A script, its keys, its other arguments.
Run = tuple[Script, Sequence[str], Sequence[_Arg]]


class _Thread(threading.local):
    """What each thread has of its own."""

    connection: Any = None
    pid = 0
    used = 0.0
    blocked: Any = None
    blocked_pid = 0
    #: Whether it is inside of `briefly`, and tries a server that has just been silent all the same.
    brief = False
    insists = False


class Connections:
    """Connections of this process to one address."""

    def __init__(self, url: str, timeout: float, revive: Callable[[], object] | None = None):
        """``revive``: called before each new connection; starts a server that may have gone."""
        try:
            where = address.parse(url)
        except ValueError as error:
            # Without its cause: a traceback would show what that has read.
            raise ConfigurationError(f"JOBS['BROKER_URL'] {error}") from None
        #: Without user and password.
        self.address = str(where)
        self._kind, self._kwargs = _client(where)
        self._timeout = timeout
        self._revive = revive
        self._local = _Thread()
        #: Until when the server counts as one that doesn't answer (`time.monotonic`).
        self._silent_until = 0.0

    def call(self, *command: _Arg) -> Any:
        """The answer to one command."""
        return self._checked(self._exchange(((command,),))[0])

    def calls(self, commands: Sequence[_Command]) -> list[Any]:
        """The answers to several commands sent in one round trip."""
        return [self._checked(answer) for answer in self._exchange((commands,))]

    def try_calls(self, commands: Sequence[_Command]) -> list[Any]:
        """`calls`, with an error that the server answered as a value."""
        return self._exchange((commands,))

    def run(self, script: Script, keys: Sequence[str], *args: _Arg) -> Any:
        """The answer of a script."""
        return self.run_all([(script, keys, args)])[0]

    def run_all(self, runs: Sequence[Run]) -> list[Any]:
        """The answers of several scripts, in one round trip.

        A script's text is sent only for those that the server answers it doesn't know.
        """
        answers = self.try_parts((runs,)) if runs else []
        return [self._checked(answer) for answer in answers]

    @contextlib.contextmanager
    def briefly(self, *, insist: bool) -> Iterator[None]:
        """Within it, this thread waits for no answer longer than a second and, when the server has
        left anybody in this process without one a moment ago, not at all.

        ``insist``: ask once all the same.
        """
        local = self._local
        before = local.brief, local.insists
        local.brief, local.insists = True, insist
        try:
            yield
        finally:
            local.brief, local.insists = before

    def try_parts(self, parts: Iterable[Sequence[Run]]) -> list[Any]:
        """The answers of scripts of all parts, each of which is sent as soon as it is there.

        An error that the server answered is a value among them.
        """
        sent: list[Run] = []

        def commands() -> Iterator[Sequence[_Command]]:
            for runs in parts:
                sent.extend(runs)
                yield [_evalsha(run) for run in runs]

        answers = self._exchange(commands())
        return [self._ran(run, answer) for run, answer in zip(sent, answers, strict=True)]

    def _ran(self, run: Run, answer: Any) -> Any:
        if isinstance(answer, NoScriptError):
            script, keys, args = run
            return self._exchange(((("EVAL", script.text, len(keys), *keys, *args),),))[0]
        return answer

    def block(self, timeout: float, *command: _Arg, then: Run | None = None) -> Any:
        """The answer to a blocking command, or None when there is none within ``timeout`` seconds.

        ``then``: a script that the server runs right after it; the answer is that of the script.
        The server's own time-outs come up to 100 ms late, at the next tick of its clock; so it is
        told when to stop. The command must block for ever by itself.
        """
        commands = [command] if then is None else [command, _evalsha(then)]
        connection = self._blocked()
        try:
            connection.send_packed_command((_packed(commands),), check_health=False)
            if not connection.can_read(timeout=max(timeout, 0)):
                self._unblock(connection)
            first, *others = [self._read(connection) for _ in commands]
        except (RedisError, OSError, BrokerUnavailable) as error:
            connection.disconnect()
            self._local.blocked = None
            raise self.translated(error) from error
        if isinstance(first, Exception):
            connection.disconnect()
            self._local.blocked = None
        self._checked(first)
        return self._checked(self._ran(then, others[0])) if then else first

    def _unblock(self, connection: Any) -> None:
        """Have the server end what blocks a connection.

        It takes the two connections in the order it likes: when it has been told to stop before it
        has begun, it must be told again, or the wait would last until it counts as an outage.
        """
        ends = time.monotonic() + self._timeout
        while not self.call("CLIENT", "UNBLOCK", connection.client_number):
            if connection.can_read(timeout=0.01) or time.monotonic() > ends:
                return

    def _blocked(self) -> Any:
        """This thread's connection for commands that block."""
        local = self._local
        if local.blocked is None or local.blocked_pid != os.getpid():
            local.blocked, local.blocked_pid = self._new_blocked(), os.getpid()
        elif _is_stale(local.blocked):
            # The thread's other connection may have met the outage already, and its end.
            local.blocked.disconnect()
            local.blocked = None
            local.blocked = self._new_blocked()
        return local.blocked

    def _new_blocked(self) -> Any:
        connection = self._new()
        try:
            connection.send_command("CLIENT", "ID")
            connection.client_number = int(connection.read_response())
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise self.translated(error) from error
        return connection

    def subscribe(self, channels: Sequence[str]) -> Any:
        """A connection of its own that is subscribed to these channels; the caller disconnects
        it."""
        connection = self._new()
        try:
            connection.send_command("SUBSCRIBE", *channels)
            for _ in channels:
                connection.read_response()
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise self.translated(error) from error
        return connection

    def close(self) -> None:
        """Disconnect this thread."""
        for name, pid in (("connection", "pid"), ("blocked", "blocked_pid")):
            connection = getattr(self._local, name, None)
            if connection is not None and getattr(self._local, pid) == os.getpid():
                connection.disconnect()
            setattr(self._local, name, None)

    def _exchange(self, parts: Iterable[Sequence[_Command]]) -> list[Any]:
        """Answers in order; an error that the server answered is a value among them."""
        brief = self._local.brief
        if brief and not self._local.insists and time.monotonic() < self._silent_until:
            raise BrokerUnavailable(f"Redis at {self.address} did not answer a moment ago")
        connection = self._mine()
        try:
            if brief:
                connection.connect()
                _set_timeout(connection, min(self._timeout, _BRIEF))
            count = 0
            for commands in parts:
                connection.send_packed_command((_packed(commands),), check_health=False)
                count += len(commands)
            answers = [self._read(connection) for _ in range(count)]
            if brief:
                _set_timeout(connection, self._timeout)
        except (RedisError, OSError) as error:
            self._drop(connection)  # half an exchange may be left on it
            if isinstance(error, redis.TimeoutError):
                self._silent_until = time.monotonic() + _SILENT
                self._local.insists = False
            raise self.translated(error) from error
        except BaseException:
            self._drop(connection)  # likewise: a time limit strikes anywhere
            raise
        self._local.used = time.monotonic()
        self._silent_until = 0.0
        if any(isinstance(answer, _MOVED) for answer in answers):
            self._drop(connection)
        return answers

    @staticmethod
    def _read(connection: Any) -> Any:
        try:
            return connection.read_response()
        except ResponseError as error:
            if str(error).startswith("Protocol error"):
                raise redis.ConnectionError(str(error)) from error  # it ends the connection then
            return error  # the answers that follow it are still to be read

    def _checked(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise self.translated(answer) from answer
        return answer

    def _mine(self) -> Any:
        local = self._local
        if local.connection is None or local.pid != os.getpid():
            # After a fork the socket belongs to the parent: leave it alone.
            local.connection, local.pid = self._new(), os.getpid()
            local.used = time.monotonic()
        elif time.monotonic() - local.used > _IDLE and _is_stale(local.connection):
            local.connection.disconnect()
            local.connection = self._new()
        return local.connection

    def _drop(self, connection: Any) -> None:
        connection.disconnect()
        self._local.connection = None

    def _new(self) -> Any:
        if self._revive:
            self._revive()
        seconds = min(self._timeout, _BRIEF) if self._local.brief else self._timeout
        return self._kind(
            **self._kwargs, socket_timeout=seconds, socket_connect_timeout=seconds, protocol=2
        )

    def translated(self, error: Exception) -> Exception:
        """An error of the client, in our words: `BrokerUnavailable` if a later try may succeed."""
        if isinstance(error, BrokerUnavailable):
            return error
        text = str(error) or type(error).__name__
        passing = isinstance(error, _PASSING) or text.startswith(_PASSING_TEXTS) or "-OOM" in text
        # Of one queue, perhaps, until somebody gives the user its rights, or deletes the key.
        refused = isinstance(error, NoPermissionError) or "WRONGTYPE" in text
        if isinstance(error, ResponseError) and not (passing or refused):
            return error  # a mistake in this program, not an outage
        advice = "".join(f". {what}" for sign, what in _ADVICE.items() if sign in text.lower())
        said = text.rstrip(".") + advice if advice else text
        kind = QueueRefused if refused else BrokerUnavailable
        away = kind(f"Redis at {self.address} can't be used: {said}")
        away.cut = isinstance(error, redis.ConnectionError)
        return away


def _client(where: address.Address) -> tuple[type[Any], dict[str, Any]]:
    """The class of redis-py for connections to an address, and the arguments it takes."""
    kwargs = {
        **where.options,
        "db": where.db,
        "username": where.username or None,
        "password": where.password or None,
    }
    if where.scheme == "unix":
        return redis.UnixDomainSocketConnection, {**kwargs, "path": where.path}
    kind = redis.SSLConnection if where.scheme == "rediss" else redis.Connection
    return kind, {**kwargs, "host": where.host, "port": where.port}


def _set_timeout(connection: Any, seconds: float) -> None:
    """Change for how long a connection waits; redis-py keeps that to itself, in three places."""
    connection.socket_timeout = connection._parser._socket_timeout = seconds
    connection._sock.settimeout(seconds)


def _packed(commands: Sequence[_Command]) -> bytes:
    # Not by redis-py, which looks at every argument in Python first.
    return b"".join([_pack(command) for command in commands])


def _evalsha(run: Run) -> _Command:
    script, keys, args = run
    return (b"EVALSHA", script.sha, len(keys), *keys, *args)


def _is_stale(connection: Any) -> bool:
    """Whether the server has closed a connection while nothing was asked of it, as one that was
    restarted has: then there is something to read, its end."""
    try:
        return bool(connection.can_read(timeout=0))
    except (RedisError, OSError):
        return True


class RedisSubscription(Subscription):
    def __init__(self, connection: Any, address: str) -> None:
        self._connection = connection
        self._address = address

    def __call__(self, timeout: float) -> bool:
        try:
            if not self._connection.can_read(timeout=max(timeout, 0)):
                return False
            self._connection.read_response()
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis at {self._address}: {error}") from error
        return True

    def fileno(self) -> int:
        # redis-py keeps it to itself.
        return int(self._connection._sock.fileno())
