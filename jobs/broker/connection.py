"""One connection to Redis per thread, and its errors in our words.

redis-py's client takes a connection out of its pool for every command; keeping one per thread makes
a single send a fifth faster. Nothing is sent twice here: only the caller knows if that is safe.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import redis
from hiredis import pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA, _HiredisParser
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
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
from jobs.broker.sentinels import Sentinels
from jobs.conf import address
from jobs.exceptions import BrokerUnavailable, ConfigurationError, QueueRefused

#: Answers of a server that can't do it now; a later try may succeed. Where redis-py has a class for
#: an error, it removes the code from its text.
_PASSING = (
    ReadOnlyError,
    OutOfMemoryError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
)
_PASSING_TEXTS = ("MISCONF", "BUSY ", "NOREPLICAS", "UNBLOCKED", "DB index", "unknown command")
#: The second: a script has met keys of a slot that is moving to another node of a Cluster.
_PASSING_PARTS = ("-OOM", "non local key")

#: Answers of a server that isn't the one to write to (any more). Only a new connection finds the
#: server that may have its name or address by now.
_MOVED = (ReadOnlyError, MasterDownError)

#: Seconds that a caller waits if it can do without an answer: see `Connections.briefly`.
_BRIEF = 1.0
#: Seconds for which such callers don't ask a server that has just failed to answer.
_SILENT = 3.0

#: Where another server may take over: seconds without an answer after which this side begins to
#: ask, again and again, whether one has. A server that is cut off resets no connection.
_DOUBT = 0.5
#: Likewise, while a blocking command lasts: seconds after which its server is asked for a sign.
_SIGN = 1.0
#: As `_SILENT`, where it may be another server by then.
_SILENT_MASTER = 1.0

#: Most bytes that are read from a connection at once.
_READ = 65_536

#: A connection that was idle for more seconds is checked before it is used.
_IDLE = 0.02
#: A connection for notifications that was idle for more seconds isn't used again: a firewall may
#: have forgotten it.
_KEPT = 60.0

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
        "Another program uses a key of this name: look at it (TYPE, KEYS), and rename or delete it."
    ),
    "db index": (
        "The server has fewer databases than the number in JOBS['BROKER_URL']: use a lower one, or "
        "raise its setting `databases`."
    ),
    "read only replica": (
        "Name the master in JOBS['BROKER_URL'], or the Sentinels that know it, by "
        "redis+sentinel://."
    ),
    "invalid username-password": "Check user and password in JOBS['BROKER_URL'].",
    "authentication required": "Put user and password into JOBS['BROKER_URL'].",
    "unknown command": (
        "If it is a Sentinel, write redis+sentinel://host:26379/service/0 into "
        "JOBS['BROKER_URL']. If not, it is too old, or its configuration renames the command."
    ),
}

#: What to say when the server isn't of the kind that the address names.
NO_CLUSTER = (
    "it is no Cluster. In JOBS['BROKER_URL'], write redis:// (with TLS, rediss://) and one host; "
    "or turn on `cluster-enabled` in the server's configuration."
)
IN_CLUSTER = (
    "it is a node of a Cluster. In JOBS['BROKER_URL'], write redis+cluster:// (with TLS, "
    "rediss+cluster://)."
)

Arg = bytes | str | int | float
Command = tuple[Arg, ...]

# The stub says that a command has one argument.
_pack = cast(Callable[[Command], bytes], pack_command)

#: A script, its keys, its other arguments.
Run = tuple[Script, Sequence[str], Sequence[Arg]]

#: Commands in the form in which they are sent, and how many they are.
_Packed = tuple[bytes, int]


class Ready:
    """A script with its keys, packed once; to be run again and again, each time with one other
    argument."""

    __slots__ = ("head", "keys", "script")

    def __init__(self, script: Script, keys: Sequence[str]) -> None:
        self.script = script
        self.keys = keys
        self.head = packed([evalsha((script, keys, (b"",)))])[0].removesuffix(b"0\r\n\r\n")

    def packed(self, arg: bytes) -> bytes:
        return b"".join((self.head, b"%d\r\n" % len(arg), arg, b"\r\n"))


class _WaitPolicy:
    """How one thread waits for answers."""

    __slots__ = ("brief", "insists")

    def __init__(self) -> None:
        #: Whether it is inside `Connections.briefly`, and gives up soon.
        self.brief = False
        #: Whether it then asks a server that has just failed to answer, too.
        self.insists = False


class WaitPolicies(threading.local):
    """The policy of each thread; the nodes of a Cluster share them."""

    def __init__(self) -> None:
        self.mine = _WaitPolicy()

    @contextlib.contextmanager
    def briefly(self, *, insist: bool) -> Iterator[None]:
        """As `Broker.briefly`."""
        policy = self.mine
        before = policy.brief, policy.insists
        policy.brief, policy.insists = True, insist
        try:
            yield
        finally:
            policy.brief, policy.insists = before


class _Mine:
    """What one thread has of its own."""

    __slots__ = (
        *("connection", "pid", "used", "blocked", "blocked_pid", "policy"),
        *("listening", "listening_pid", "listened", "waiting", "waiting_pid"),
    )

    def __init__(self, policy: _WaitPolicy) -> None:
        self.policy = policy
        self.connection: Any = None
        self.pid = 0
        self.used = 0.0
        self.blocked: Any = None
        self.blocked_pid = 0
        #: Further ones for commands that block.
        self.waiting: list[Any] = []
        self.waiting_pid = 0
        #: For the notifications that this thread waits for; None also while it is in use.
        self.listening: Any = None
        self.listening_pid = 0
        self.listened = 0.0


class _Threads(threading.local):
    """One object for each thread: to reach it takes ten times as long as to use it."""

    def __init__(self, policies: WaitPolicies) -> None:
        self.mine = _Mine(policies.mine)


#: The id of this process. To ask the system for it takes a call of the kernel.
_pid = os.getpid()


def _note_fork() -> None:
    global _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


class Connections:
    """Connections of this process to one address."""

    def __init__(
        self,
        url: str | address.Address,
        timeout: float,
        revive: Callable[[], object] | None = None,
        *,
        replaced: Callable[[Any], bool] | None = None,
        policies: WaitPolicies | None = None,
    ) -> None:
        """``revive``: called before each new connection; starts a server that may have gone.
        ``replaced``: tells whether another server has taken over from that of a connection.
        ``policies``: shared with other connections that the same threads use."""
        where = read(url) if isinstance(url, str) else url
        #: Without user and password.
        self.address = str(where)
        self.host = where.host if where.hosts else ""
        self.port = where.port if where.hosts else 0
        #: Its number on the server.
        self.database = where.db
        self._kind, self._kwargs = client(where)
        self._sentinels = Sentinels(where) if where.kind is address.Kind.SENTINEL else None
        self._replaced = self._has_successor if self._sentinels else replaced
        self._silence = _SILENT_MASTER if self._sentinels else _SILENT
        self._timeout = timeout
        self._revive = revive
        self._policies = policies or WaitPolicies()
        self._threads = _Threads(self._policies)
        #: Until when the server counts as silent (`time.monotonic`).
        self._silent_until = 0.0

    def call(self, *command: Arg) -> Any:
        """The answer to one command."""
        return self._checked(self._exchange((packed([command]),))[0])

    def calls(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to several commands sent in one round trip."""
        return [self._checked(answer) for answer in self._exchange((packed(commands),))]

    def try_calls(self, commands: Sequence[Command]) -> list[Any]:
        """`calls`, but errors that the server answers are returned as values."""
        return self._exchange((packed(commands),))

    def run(self, script: Script, keys: Sequence[str], *args: Arg) -> Any:
        """The answer of a script."""
        return self.run_all([(script, keys, args)])[0]

    def run_all(self, runs: Sequence[Run]) -> list[Any]:
        """The answers of several scripts, in one round trip.

        The text of a script is sent only if the server answers that it doesn't know it.
        """
        return [self._checked(answer) for answer in self.try_all(runs)] if runs else []

    def try_all(self, runs: Sequence[Run]) -> list[Any]:
        """`run_all`, but errors that the server answers are returned as values."""
        answers = self._exchange((packed([evalsha(run) for run in runs]),))
        return [self._ran(run, answer) for run, answer in zip(runs, answers, strict=True)]

    def try_ready(self, ready: Ready, arg: bytes) -> Any:
        """`try_all` with one script, in less time."""
        answer = self._ask(ready.packed(arg))
        if isinstance(answer, Exception):
            return self._ran((ready.script, ready.keys, (arg,)), answer)
        return answer

    def everywhere(self, *commands: Command) -> list[list[Any]]:
        """The answers to commands without a key: a list for each server, of which there is one."""
        return [self.calls(commands)]

    def clocks(self, keys: Sequence[str]) -> list[int]:
        """What the clocks of the servers that have these keys say, in milliseconds."""
        return [milliseconds(self.call("TIME"))] * len(keys)

    def try_timed(self, commands: Sequence[Command]) -> tuple[list[Any], list[int]]:
        """`try_calls`, and for each command what the clock of its server says after it, in
        milliseconds."""
        *answers, time_ = self.try_calls([*commands, ("TIME",)])
        return answers, [milliseconds(self._checked(time_))] * len(answers)

    def briefly(self, *, insist: bool) -> contextlib.AbstractContextManager[None]:
        """As `Broker.briefly`."""
        return self._policies.briefly(insist=insist)

    def passing_over(self) -> contextlib.AbstractContextManager[None]:
        """As `Broker.passing_over`: there is one server, and so nothing else to do meanwhile."""
        return contextlib.nullcontext()

    def try_parts(self, parts: Iterable[Sequence[Run]], then: Command = ()) -> list[Any]:
        """The answers of all scripts; each part is sent as soon as it is made. Errors that the
        server answers are returned as values.

        ``then``: a command that is sent after them, on the same connection; its answer comes last.
        """
        sent: list[Run] = []

        def commands() -> Iterator[_Packed]:
            for runs in parts:
                sent.extend(runs)
                yield packed([evalsha(run) for run in runs])

            if then:
                yield packed([then])

        answers = self._exchange(commands())
        last = answers[len(sent) :]
        ran = [self._ran(run, answer) for run, answer in zip(sent, answers, strict=False)]
        if last and any(isinstance(answer, NoScriptError) for answer in answers):
            last = self._exchange((packed([then]),))  # the scripts have only run now
        return ran + last

    def _ran(self, run: Run, answer: Any) -> Any:
        if isinstance(answer, NoScriptError):
            script, keys, args = run
            command = ("EVAL", script.text, len(keys), *keys, *args)
            return self._exchange((packed([command]),))[0]
        return answer

    def block(self, timeout: float, *command: Arg, then: Run | None = None) -> Any:
        """The answer to a blocking command, or None when there is none within ``timeout`` seconds.

        ``then``: a script that the server runs right after it, whose answer is returned instead.
        The command itself must have no time-out: the server's own come up to 100 ms late, at the
        next tick of its clock. So we tell it when to stop.
        """
        first, *others = self.try_block(timeout, command, then)
        self._checked(first)
        return self._checked(self._ran(then, others[0])) if then else first

    def try_block(self, timeout: float, command: Command, then: Run | None) -> list[Any]:
        """The answers to the command of `block` and, if it is given, to ``then``. Errors that the
        server answers are returned as values."""
        commands = [command] if then is None else [command, evalsha(then)]
        connection = self._blocked()
        try:
            write(connection, packed(commands)[0])
            if not self._is_answered(connection, timeout):
                self._unblock(connection)
            first, *others = [answer_of(connection) for _ in commands]
        except (RedisError, OSError, BrokerUnavailable) as error:
            self._doubt(connection)
            connection.disconnect()
            self._threads.mine.blocked = None
            raise self.translated(error) from error
        except BaseException:
            connection.disconnect()  # as in `_exchange`
            self._threads.mine.blocked = None
            raise
        if isinstance(first, Exception):
            connection.disconnect()
            self._threads.mine.blocked = None
        return [first, *others]

    def _is_answered(self, connection: Any, timeout: float) -> bool:
        """Whether a blocking command is answered within ``timeout`` seconds. Raises redis-py's
        errors and `BrokerUnavailable` if another server has taken over, or its own is gone."""
        ends = time.monotonic() + timeout
        while self._replaced and ends - time.monotonic() > _SIGN:
            if _is_readable(connection._sock, _SIGN):
                return True
            self.give_sign(connection)
        return _is_readable(connection._sock, ends - time.monotonic())

    def give_sign(self, connection: Any) -> None:
        """Raise an error unless the server of a blocked connection answers."""
        self.try_calls([("PING",)])
        if not _is_same(self.current, connection):
            raise redis.ConnectionError("another server has taken over")

    def popped(self, keys: Sequence[str], timeout: float) -> list[str]:
        """Wait until one of these lists has an element, and pop that. The list's key; none if
        nothing came within ``timeout`` seconds."""
        answer = self.block(timeout, "BLPOP", *keys, 0)
        return [answer[0].decode()] if answer else []

    def waiting(self, n: int) -> Any:
        """This thread's n-th further connection for commands that block; all before it must be
        there."""
        local = self._threads.mine
        if local.waiting_pid != _pid:
            # After a fork the sockets are the parent's.
            local.waiting, local.waiting_pid = [], _pid
        if n == len(local.waiting):
            local.waiting.append(self._new_blocked())
        elif _is_stale(local.waiting[n]):
            local.waiting.pop(n).disconnect()
            local.waiting.insert(n, self._new_blocked())
        return local.waiting[n]

    def forget_waiting(self) -> None:
        """Make all these connections anew, the next time."""
        local = self._threads.mine
        if local.waiting_pid == _pid:
            for connection in local.waiting:
                connection.disconnect()
        local.waiting = []

    def unblock(self, connections: Sequence[Any]) -> None:
        """Make the server end the blocking commands of these connections, but for those that it
        has answered."""
        asked = [one for one in connections if not _is_readable(one._sock)]
        if not asked:
            return
        said = self.calls([("CLIENT", "UNBLOCK", one.client_number) for one in asked])
        for connection, was_blocked in zip(asked, said, strict=True):
            if not was_blocked:
                self._unblock(connection)

    def _unblock(self, connection: Any) -> None:
        """Make the server end the blocking command of a connection.

        The server may read this before it reads the blocking command. Then it has to be told
        again, or the wait would last until it counts as an outage.
        """
        ends = time.monotonic() + self._timeout
        while not self.call("CLIENT", "UNBLOCK", connection.client_number):
            if has_answer(connection, 0.01) or time.monotonic() > ends:
                return

    def _blocked(self) -> Any:
        """This thread's connection for commands that block."""
        local = self._threads.mine
        if local.blocked is None or local.blocked_pid != _pid:
            local.blocked, local.blocked_pid = self._new_blocked(), _pid
        elif _is_stale(local.blocked):
            # The thread's other connection may have been through this outage already.
            local.blocked.disconnect()
            local.blocked = None
            local.blocked = self._new_blocked()
        return local.blocked

    def _new_blocked(self) -> Any:
        connection = self._new()
        try:
            write(connection, _pack(("CLIENT", "ID")))
            connection.client_number = int(said(connection))
        except (RedisError, OSError) as error:
            self._doubt(connection)
            connection.disconnect()
            raise self.translated(error) from error
        return connection

    def subscribe(self, channels: Sequence[str], *, pattern: bool = False) -> Any:
        """A connection of its own that is subscribed to these channels; the caller disconnects
        it. ``pattern``: whether they are patterns of names."""
        connection = self._new()
        try:
            if channels:
                command = "PSUBSCRIBE" if pattern else "SUBSCRIBE"
                write(connection, _pack((command, *channels)))
                for _ in channels:
                    said(connection)
            else:
                connect(connection)
        except (RedisError, OSError) as error:
            self._doubt(connection)
            connection.disconnect()
            raise self.translated(error) from error
        return connection

    @contextlib.contextmanager
    def listen(self, channel: str) -> Iterator[Any]:
        """A connection that is subscribed to this channel, which the thread keeps for the next
        time: to connect takes longer than many a task."""
        local = self._threads.mine
        connection, local.listening = local.listening, None
        if connection is not None and local.listening_pid == _pid:
            connection = self._listen_again(connection, channel)
        else:
            connection = None
        if connection is None:
            connection = self.subscribe([channel])
        try:
            yield connection
        except BaseException:
            connection.disconnect()  # a time limit strikes anywhere
            raise
        try:
            _send(connection, "UNSUBSCRIBE", channel)  # the answer is read the next time
        except (RedisError, OSError):
            return  # it is disconnected by that
        local.listening, local.listening_pid = connection, _pid
        local.listened = time.monotonic()

    def _listen_again(self, connection: Any, channel: str) -> Any:
        """The connection, subscribed to another channel; None if it can't be used any more."""
        try:
            if time.monotonic() - self._threads.mine.listened > _KEPT:
                connection.disconnect()
                return None
            while has_answer(connection):
                said(connection)
            _send(connection, "SUBSCRIBE", channel)
            while said(connection)[:2] != [b"subscribe", channel.encode()]:
                pass
        except (RedisError, OSError) as error:
            connection.disconnect()
            if isinstance(error, redis.TimeoutError):
                raise self.translated(error) from error
            return None
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def close(self) -> None:
        """Disconnect this thread."""
        local = self._threads.mine
        for connection, pid in (
            (local.connection, local.pid),
            (local.blocked, local.blocked_pid),
            (local.listening, local.listening_pid),
            *((connection, local.waiting_pid) for connection in local.waiting),
        ):
            if connection is not None and pid == _pid:
                connection.disconnect()
        local.waiting = []
        local.connection = local.blocked = local.listening = None

    def _exchange(self, parts: Iterable[_Packed]) -> list[Any]:
        """The answers in order. Errors that the server answers are returned as values."""
        return self.collect(self.post(parts))

    def _ask(self, packed: bytes) -> Any:
        """The answer to one command: `_exchange` in half the time, for what every send does."""
        local = self._threads.mine
        if local.policy.brief:
            return self._exchange(((packed, 1),))[0]
        connection = self._mine(local)
        try:
            write(connection, packed)
            answer = answer_of(connection)
        except (RedisError, OSError) as error:
            raise self._gone(error) from error
        except BaseException:
            self.abandon()  # a time limit strikes anywhere
            raise
        local.used = time.monotonic()
        self._silent_until = 0.0
        if isinstance(answer, _MOVED):
            self.abandon()
        return answer

    def post(self, parts: Iterable[_Packed], *, going_on: bool = False) -> int:
        """Send commands. Returns how many: their answers must be read by `collect` before this
        thread sends others, or `abandon` is called.

        ``going_on``: whether there are such answers already, to commands sent a moment ago.
        """
        local = self._threads.mine
        policy = local.policy
        if policy.brief and not policy.insists and time.monotonic() < self._silent_until:
            raise BrokerUnavailable(f"Redis at {self.address} did not answer a moment ago")
        connection = local.connection if going_on else self._mine(local)
        try:
            if policy.brief:
                if connection._sock is None:
                    connect(connection)
                _set_timeout(connection, min(self._timeout, _BRIEF))
            count = 0
            for packed_, number in parts:
                write(connection, packed_)
                count += number
        except (RedisError, OSError) as error:
            raise self._gone(error) from error
        except BaseException:
            self.abandon()  # a time limit strikes anywhere
            raise
        return count

    def collect(self, count: int) -> list[Any]:
        """Read so many answers to what was posted. Errors that the server answers are returned as
        values."""
        local = self._threads.mine
        connection = local.connection
        try:
            answers = [answer_of(connection) for _ in range(count)]
            if local.policy.brief:
                _set_timeout(connection, self._timeout)
        except (RedisError, OSError) as error:
            raise self._gone(error) from error
        except BaseException:
            self.abandon()  # likewise
            raise
        local.used = time.monotonic()
        self._silent_until = 0.0
        for answer in answers:
            if isinstance(answer, _MOVED):
                self.abandon()
        return answers

    def abandon(self) -> None:
        """Disconnect: an unread answer may be left."""
        local = self._threads.mine
        if local.connection is not None and local.pid == _pid:
            self._doubt(local.connection)
            local.connection.disconnect()
        local.connection = None

    @property
    def current(self) -> Any:
        """This thread's connection, if it has one."""
        return self._threads.mine.connection

    def _gone(self, error: Exception) -> Exception:
        """What is to be raised when the server can't be reached."""
        self.abandon()
        if isinstance(error, redis.TimeoutError):
            self._silent_until = time.monotonic() + self._silence
            self._threads.mine.policy.insists = False
        return self.translated(error)

    def _checked(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise self.translated(answer) from answer
        return answer

    def _mine(self, local: _Mine) -> Any:
        if local.connection is None or local.pid != _pid:
            # After a fork the socket is the parent's: leave it alone.
            local.connection, local.pid = self._new(), _pid
            local.used = time.monotonic()
        elif time.monotonic() - local.used > _IDLE and _is_stale(local.connection):
            local.connection.disconnect()
            local.connection = None  # or it would be used again if there can't be a new one
            local.connection = self._new()
        return local.connection

    def _new(self) -> Any:
        if self._revive:
            self._revive()
        seconds = min(self._timeout, _BRIEF) if self._threads.mine.policy.brief else self._timeout
        where = self._sentinels.master(seconds) if self._sentinels else {}
        once = min(seconds, _DOUBT) if self._replaced else seconds
        timeouts = {"socket_timeout": once, "socket_connect_timeout": once}
        kwargs = {**self._kwargs, **where, **timeouts, "parser_class": Parser}
        connection = self._kind(**kwargs, protocol=2)
        # Of ours, for `_is_over`: seconds for an answer in all, and whom to ask in between.
        connection.patience, connection.replaced = seconds, self._replaced
        return connection

    def _doubt(self, connection: Any) -> None:
        """Note that the server of this connection may not be the master any more."""
        if self._sentinels:
            self._sentinels.doubt(connection.host, connection.port)

    def _has_successor(self, connection: Any) -> bool:
        """Whether a Sentinel names another master than the server of this connection."""
        assert self._sentinels is not None
        self._doubt(connection)
        try:
            master = self._sentinels.master(_DOUBT)
        except BrokerUnavailable:
            return False  # nobody knows
        return (master["host"], master["port"]) != (connection.host, connection.port)

    def translated(self, error: Exception) -> Exception:
        """An error of the client, in our words: `BrokerUnavailable` if a later try may succeed."""
        return in_our_words(error, self.address)


def read(url: str) -> address.Address:
    """The address of ``JOBS["BROKER_URL"]``. Raises `ConfigurationError`."""
    try:
        return address.parse(url)
    except ValueError as error:
        # Without its cause, whose traceback would show the password.
        raise ConfigurationError(f"JOBS['BROKER_URL'] {error}") from None


def in_our_words(error: Exception, at: str) -> Exception:
    """As `Connections.translated`. ``at``: the address of the server, without a password."""
    if isinstance(error, BrokerUnavailable):
        return error
    text = str(error) or type(error).__name__
    if isinstance(error, AskError | ClusterCrossSlotError):
        return BrokerUnavailable(f"Redis at {at} can't be used: {IN_CLUSTER}")
    passing = isinstance(error, _PASSING) or text.startswith(_PASSING_TEXTS)
    passing |= any(part in text for part in _PASSING_PARTS)
    # Lasts until somebody changes the user's rights or deletes the key; may affect one queue.
    refused = isinstance(error, NoPermissionError) or "WRONGTYPE" in text
    if isinstance(error, ResponseError) and not (passing or refused):
        return error  # a mistake in this program, not an outage
    if text.startswith("unknown command"):
        text = text.partition(", with args")[0]  # those may be arguments of a call
    advice = "".join(f". {what}" for sign, what in _ADVICE.items() if sign in text.lower())
    said = text.rstrip(".") + advice if advice else text
    kind = QueueRefused if refused else BrokerUnavailable
    away = kind(f"Redis at {at} can't be used: {said}")
    away.cut = isinstance(error, redis.ConnectionError)
    return away


class Parser(_HiredisParser):
    """redis-py's own, with classes for what the nodes of a Cluster answer: before version 6, only
    its client for a Cluster has them."""

    EXCEPTION_CLASSES = {
        **_HiredisParser.EXCEPTION_CLASSES,
        "ASK": AskError,
        "CLUSTERDOWN": ClusterDownError,
        "CROSSSLOT": ClusterCrossSlotError,
        "MASTERDOWN": MasterDownError,
        "MOVED": MovedError,
        "TRYAGAIN": TryAgainError,
    }


def client(where: address.Address) -> tuple[type[Any], dict[str, Any]]:
    """redis-py's class for connections to this address, and its arguments."""
    kwargs = {
        **where.options,
        "db": where.db,
        "username": where.username or None,
        "password": where.password or None,
    }
    if where.scheme == "unix":
        return redis.UnixDomainSocketConnection, {**kwargs, "path": where.path}
    kind = redis.SSLConnection if where.tls else redis.Connection
    return kind, {**kwargs, "host": where.host, "port": where.port}


def _set_timeout(connection: Any, seconds: float) -> None:
    """Change how long a connection waits for an answer. Its time-out is kept by redis-py in three
    private places."""
    connection.patience = seconds
    if connection.replaced is not None:
        return  # it waits for a part of that at a time
    connection.socket_timeout = connection._parser._socket_timeout = seconds
    connection._sock.settimeout(seconds)


def packed(commands: Sequence[Command]) -> _Packed:
    # Not with redis-py's packer, which checks every argument in Python first.
    if len(commands) == 1:
        return _pack(commands[0]), 1
    return b"".join([_pack(command) for command in commands]), len(commands)


def _send(connection: Any, *command: Arg) -> None:
    connection.send_packed_command((_pack(command),), check_health=False)


# The two ways on which every command and every answer goes. redis-py's own methods do the same, in
# a fifth of the time of a send: they look for things that a connection of ours never has.


def write(connection: Any, packed: bytes) -> None:
    """Send packed commands. Raises redis-py's errors; the caller disconnects then."""
    if connection._sock is None:
        connect(connection)
    waited = 0.0
    rest: bytes | memoryview = packed
    while True:
        try:
            sent = connection._sock.send(rest)
        except TimeoutError as error:
            waited += connection.socket_timeout
            if _is_over(connection, waited):
                raise redis.TimeoutError("Timeout writing to socket") from error
            continue
        except OSError as error:
            raise redis.ConnectionError(f"Error while writing to socket: {error}") from error
        if sent == len(rest):
            return
        rest, waited = memoryview(rest)[sent:], 0.0


def answer_of(connection: Any) -> Any:
    """The next answer. An error that the server answers is returned as a value, so that the answers
    after it are read as well. Raises redis-py's errors; the caller disconnects then."""
    reader = connection._parser._reader
    if reader is None:
        raise redis.ConnectionError("The connection was closed.")
    waited = 0.0
    while (answer := reader.gets()) is NOT_ENOUGH_DATA:
        try:
            read = connection._sock.recv(_READ)
        except TimeoutError as error:
            waited += connection.socket_timeout
            if _is_over(connection, waited):
                raise redis.TimeoutError("Timeout reading from socket") from error
            continue
        except OSError as error:
            raise redis.ConnectionError(f"Error while reading from socket: {error}") from error
        if not read:
            raise redis.ConnectionError("Connection closed by server.")
        reader.feed(read)
    if isinstance(answer, Exception):
        if isinstance(answer, redis.ConnectionError):
            raise answer
        if str(answer).startswith("Protocol error"):  # the server hangs up after it
            raise redis.ConnectionError(str(answer)) from answer
    return answer


def said(connection: Any) -> Any:
    """As `answer_of`, but errors that the server answers are raised."""
    answer = answer_of(connection)
    if isinstance(answer, Exception):
        raise answer
    return answer


def connect(connection: Any) -> None:
    """Connect, if it isn't connected. Raises redis-py's errors."""
    waited = 0.0
    while True:
        try:
            connection.connect()
        except redis.TimeoutError:
            waited += connection.socket_timeout
            if _is_over(connection, waited):
                raise
        else:
            return


def _is_over(connection: Any, waited: float) -> bool:
    """Whether the server of a connection, which hasn't answered for so many seconds, has had its
    time. Raises redis-py's `ConnectionError` if another server has taken over."""
    if connection.replaced is not None and connection.replaced(connection):
        raise redis.ConnectionError("another server has taken over")
    return bool(waited >= connection.patience)


def _is_same(one: Any, other: Any) -> bool:
    """Whether both connections lead to the same server."""
    if one is None or other is None:
        return False
    return bool((one.host, one.port) == (other.host, other.port))


def milliseconds(told: Sequence[bytes]) -> int:
    """The answer to TIME, seconds and microseconds, in milliseconds."""
    seconds, micros = told
    return int(seconds) * 1000 + int(micros) // 1000


def evalsha(run: Run) -> Command:
    script, keys, args = run
    return (b"EVALSHA", script.sha, len(keys), *keys, *args)


def _is_stale(connection: Any) -> bool:
    """Whether the server has closed this idle connection, as a restarted server has: then there is
    something to read, the end of the stream. One that nothing was sent on has not connected yet."""
    if connection._sock is None or not _is_readable(connection._sock):
        return False
    try:
        return has_answer(connection)
    except (RedisError, OSError):
        return True


def has_answer(connection: Any, timeout: float = 0.0) -> bool:
    """Whether an answer, or the end of the stream, can be read within ``timeout`` seconds. Raises
    redis-py's `ConnectionError` for a connection that is closed.

    Not redis-py's `can_read`: before version 8 that takes the answer away from the reader, where
    `answer_of` would wait for it in vain.
    """
    if connection._sock is None:
        raise redis.ConnectionError("The connection was closed.")
    return bool(connection._parser._reader.has_data()) or _is_readable(connection._sock, timeout)


def _is_readable(sock: socket.socket, timeout: float = 0.0) -> bool:
    """Whether something comes within ``timeout`` seconds."""
    asked = select.poll()
    asked.register(sock, select.POLLIN)
    return bool(asked.poll(max(timeout, 0.0) * 1000))


class RedisSubscription(Subscription):
    def __init__(self, connection: Any, address: str, prefix: str) -> None:
        """``prefix``: what the names of channels have before their topics."""
        self._connection = connection
        self._address = address
        self._prefix = prefix

    def __call__(self, timeout: float) -> bool:
        try:
            if not has_answer(self._connection, timeout):
                return False
            said(self._connection)
        except (RedisError, OSError) as error:
            raise self._away(error) from error
        return True

    def ask(self, topics: Sequence[str]) -> None:
        self._send("SUBSCRIBE", topics)  # the answer, one for each, is taken

    def leave(self, topics: Sequence[str]) -> None:
        self._send("UNSUBSCRIBE", topics)

    def take(self) -> list[str]:
        taken = []
        try:
            while has_answer(self._connection):
                kind, channel, _ = said(self._connection)
                if kind != b"unsubscribe":
                    taken.append(channel.decode()[len(self._prefix) :])
        except (RedisError, OSError) as error:
            raise self._away(error) from error
        return taken

    def _send(self, command: str, topics: Sequence[str]) -> None:
        channels = [self._prefix + topic for topic in topics]
        try:
            _send(self._connection, command, *channels)
        except (RedisError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(f"Redis at {self._address}: {error}")

    def fileno(self) -> int:
        # redis-py has no public name for it.
        return int(self._connection._sock.fileno())
