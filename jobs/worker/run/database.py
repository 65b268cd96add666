"""A child's database connections: what a task changed of one does not reach the next task.

Two looks: after each task, whether its connections are as they were (`after_call`), and once a
second Django's own care around a request (`Care`). The first costs no round trip: the driver knows
whether a transaction is open, and a connection is asked for its attributes. What only the server
knows (a role, a setting, a lock) is told from the statements that were sent.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import attrgetter
from typing import Any

from asgiref.sync import SyncToAsync
from django.db import Error as DatabaseError
from django.db import (
    InterfaceError,
    OperationalError,
    close_old_connections,
    connections,
    reset_queries,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from jobs.exceptions import TransactionLeftOpen
from jobs.message import Message
from jobs.running.request import current

log = logging.getLogger("jobs.worker")

#: Least time, in seconds, between two looks at a thread's connections.
_EVERY = 1.0
#: A thread that a task started has used its connection so long ago that it may be closed.
_IDLE = 5.0


class Care:
    """Closes what has outlived CONN_MAX_AGE or is broken, at most once a second.

    Not after each task: with Django's default CONN_MAX_AGE of 0 every short task would pay for a
    new connection, which is what slows other systems with results in the database ten times.
    """

    def __init__(self) -> None:
        self._next = 0.0
        #: Whether the thread may have connections that nobody has looked at since.
        self.pending = False

    def between_tasks(self) -> None:
        self.pending = True
        now = time.monotonic()
        if now >= self._next:
            self.now()
            self.pending = True

    def now(self) -> None:
        """Also after a task that failed: it may have left its connection in any state."""
        self.pending = False
        self._next = time.monotonic() + _EVERY
        close_old_connections()
        reset_queries()  # with DEBUG on, Django keeps every statement


# ------------------------------------------------------------------------------ statements

#: What may hold anything: comments, strings of all kinds, quoted names. Whichever begins first, so
#: that a quote in a comment begins no string.
_OPAQUE = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?\*/)"
    r"|\bE'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    r'|"(?P<name>(?:[^"]|"")*)"',
    re.S | re.I,
)
_NOT_OF_NAMES = re.compile(r"\W")
#: Statements that change rows, tables or the transaction, and nothing that outlives it.
_PLAIN = re.compile(
    r"[\s(;]*(?:select|insert|update|delete|merge|replace|with|values|table|explain|savepoint"
    r"|release|rollback|commit|end|truncate|show|describe|notify|copy|analyze|vacuum|reindex"
    r"|refresh|comment|fetch|move|close|drop|alter\s+table"
    r"|create\s+(?:unique\s+)?(?:table|index|view|materialized)"
    r"|pragma\s+[\w.]+[\s;]*$|pragma\s+(?:\w+\.)?(?:table|index|foreign_key)_\w+)\b",
    re.I,
)
#: Where the driver knows that a transaction is open.
_BEGINS = re.compile(r"[\s(;]*(?:begin|start)\b", re.I)
_PLAIN_ON_POSTGRESQL = re.compile(
    r"[\s(;]*(?:lock|set\s+(?:local|transaction|constraints))\b", re.I
)
#: What changes the session within a plain statement.
_OF_SESSION = re.compile(
    r"\bset_config\s*\(|\bpg_(?:try_)?advisory_lock|\bdblink_connect|\bget_lock\s*\(|\bsetseed\s*\("
    r"|\bload_extension\s*\(|@\w+\s*:=|\binto\s+(?:local\s+|global\s+)?temp|;\s*\S"
    r"|\bupdate\s[^=]*\bpg_settings\b|\b(?:create|into)\s[^(]*?\b(?:pg_)?temp\s*\.",
    re.I,
)
_SET_LOCAL_CONFIG = re.compile(r"\bset_config\s*\([^()]*,\s*true\s*\)", re.I)

#: Cursors noted of one task, until those that nobody has any more are forgotten.
_MOST_CURSORS = 100

#: Statements known to change nothing of a session, by database. A set of this many at most.
_known: dict[str, set[str]] = {}
_MOST_KNOWN = 2000
_LONGEST_KNOWN = 20_000


def changes_session(statement: str, vendor: str) -> bool:
    """Whether a statement may leave more behind than rows and tables: a setting, a role, a lock, a
    temporary table, a prepared statement. Rather yes than no: what is not known to be plain."""
    text = _OPAQUE.sub(_plainly, statement)
    if not text.strip():
        return False
    plain = (
        _PLAIN.match(text)
        or (vendor in _DRIVERS and _BEGINS.match(text))
        or (vendor == "postgresql" and _PLAIN_ON_POSTGRESQL.match(text))
    )
    return not plain or bool(_OF_SESSION.search(_SET_LOCAL_CONFIG.sub("", text)))


def _plainly(found: re.Match[str]) -> str:
    if found["comment"]:
        return " "
    return _NOT_OF_NAMES.sub("_", found["name"]) if found["name"] else "''"


# ------------------------------------------------------------------------------ connections

#: What the state of every connection consists of.
_STATE = (
    "connection",
    "autocommit",
    "in_atomic_block",
    "closed_in_transaction",
    "needs_rollback",
    "force_debug_cursor",
    "run_on_commit",
    "savepoint_ids",
    "execute_wrappers",
)
#: And of a closed one.
_STATE_CLOSED = ("connection", "force_debug_cursor", "run_on_commit", "execute_wrappers")
#: What drivers know besides, without asking the server; first, whether a transaction is open.
_DRIVERS = {
    "postgresql": (
        "connection.pgconn.transaction_status",
        "isolation_level",
        "connection.autocommit",
        "connection.isolation_level",
        "connection.read_only",
        "connection.deferrable",
        "connection.row_factory",
        "connection.cursor_factory",
    ),
    "sqlite": (
        "connection.in_transaction",
        "connection.isolation_level",
        "connection.row_factory",
        "connection.text_factory",
    ),
}
#: libpq's number for a connection in which a command is in progress.
_ACTIVE = 1
#: Of psycopg 2, which has no `deferrable` of its own kind and no `row_factory`.
_PSYCOPG2 = (
    "connection.info.transaction_status",
    "isolation_level",
    "connection.autocommit",
    "connection.isolation_level",
    "connection.readonly",
    "connection.deferrable",
    "connection.cursor_factory",
)


def _is_cut(connection: BaseDatabaseWrapper) -> bool:
    closed = getattr(connection.connection, "closed", None)  # psycopg knows
    return bool(closed) if closed is not None else not connection.is_usable()


def _attributes_of(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    if connection.vendor == "postgresql":
        if not hasattr(connection.connection, "read_only"):
            return _PSYCOPG2
        if hasattr(connection.connection, "_pipeline"):
            # A pipeline that was begun and not ended: what is sent in it isn't committed.
            return (*_DRIVERS["postgresql"], "connection._pipeline")
    return _DRIVERS.get(connection.vendor, ())


class Watched:
    """A connection that was opened in this process, and how it was when it was new.

    It is the first of the connection's `execute_wrappers`, so it sees the statements.
    """

    def __init__(self, connection: BaseDatabaseWrapper, owner: _Thread) -> None:
        self.connection = connection
        self.owner = owner
        self._plain = _known.setdefault(connection.vendor, set())
        #: Nobody has it any more.
        self.discarded = False
        connection.execute_wrappers.insert(0, self)
        self.begin()

    def begin(self) -> None:
        """The connection is new."""
        connection = self.connection
        driver = _attributes_of(connection)
        self._state: Callable[[Any], tuple[Any, ...]] = attrgetter(*_STATE, *driver)
        raw = connection.connection
        if connection.vendor == "postgresql":
            raw.cursor_factory = _noticing(raw.cursor_factory, self)
            if hasattr(raw, "server_cursor_factory"):
                raw.server_cursor_factory = _noticing(raw.server_cursor_factory, self, named=True)
        idle = self._state(connection)[len(_STATE) :]
        autocommit = connection.settings_dict["AUTOCOMMIT"]
        self._wrappers = list(connection.execute_wrappers)
        self._clean: tuple[Any, ...] = (
            raw,
            autocommit,
            False,
            False,
            False,
            False,
            [],
            [],
            self._wrappers,
            *idle,
        )
        #: The beginning of the statement that changed the session.
        self.changed = ""
        #: How many statements were executed by server-side cursors that the driver itself gave.
        self.named = 0
        self._server_cursors = self._count_server_cursors()
        #: Attributes of Django's connection, of which a task may add its own.
        self._attributes = vars(connection)
        self._named_attributes = set(self._attributes)
        self._attribute_count = len(self._attributes)
        #: When the last statement ended (monotonic), and its cursor.
        self.used = time.monotonic()
        self._cursor: weakref.ref[Any] | None = None
        #: Those that statements of this task were executed with, where an unread one holds a lock
        #: in the database: SQLite's. PostgreSQL's have all their rows, but for named ones.
        self._cursors: list[weakref.ref[Any]] = []
        self._notes_cursors = connection.vendor != "postgresql"

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        self.look(sql)
        if self.owner.ours:
            if self._notes_cursors:
                self._note_cursor(context["cursor"])
            return self._execute(execute, sql, params, many, context)
        with self.owner.lock:
            try:
                return self._execute(execute, sql, params, many, context)
            finally:
                cursor = self._cursor = weakref.ref(context["cursor"])
                self.used = time.monotonic()
                named = getattr(context["cursor"].cursor, "name", None)
                if self.owner.shared and (named or self._notes_cursors) and (who := current.get()):
                    _unread.setdefault(who[0].id, []).append(cursor)

    def _execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        try:
            return execute(sql, params, many, context)
        except (OperationalError, InterfaceError):
            # A connection that was cut fails once: whoever uses it next gets a new one.
            connection = self.connection
            if connection.autocommit and not connection.in_atomic_block and _is_cut(connection):
                connection.close()
            raise

    def look(self, sql: Any) -> None:
        """At a statement that is about to be executed."""
        if not isinstance(sql, str):
            sql = sql.decode(errors="replace") if isinstance(sql, bytes) else _text_of(sql)
        if sql in self._plain:
            return
        if changes_session(sql, self.connection.vendor):
            self.changed = self.changed or " ".join(sql.split())[:60]
        elif len(sql) <= _LONGEST_KNOWN:
            if len(self._plain) >= _MOST_KNOWN:
                self._plain.clear()
            self._plain.add(sql)

    def _note_cursor(self, cursor: Any) -> None:
        if len(self._cursors) >= _MOST_CURSORS:
            self._cursors = [one for one in self._cursors if one() is not None]
        self._cursors.append(weakref.ref(cursor))

    # ------------------------------------------------------------------ after a task

    def is_as_it_was(self) -> bool:
        try:
            return (
                self._state(self.connection) == self._clean
                and not self.changed
                and (len(self._attributes) == self._attribute_count or not self._added())
            )
        except Exception:  # noqa: BLE001  it was closed, or isn't the driver's any more
            return False

    def restore(self) -> tuple[list[str], bool]:
        """Make it what it was; what was left of what the task did, in words, and whether that was
        a transaction in which something may have been done."""
        connection, raw = self.connection, self._clean[0]
        left, lost = self._left()
        if connection.connection is None:
            self._reset()
            self._rest()  # closed, as anybody may
            return left, lost
        # Not when a statement is still being executed, whose cursor would keep the driver waiting.
        if connection.connection is raw and not self.changed and not self._is_in_statement():
            with contextlib.suppress(DatabaseError):
                self._reset()
                connection.rollback()
                connection.set_autocommit(connection.settings_dict["AUTOCOMMIT"])
            if self.is_as_it_was():
                return left, lost
        self._discard()
        return left, lost

    def close_cursors(self) -> int:
        """Close those that somebody still has; how many."""
        if not self._cursors:
            return 0
        left = _still_held(self._cursors)
        self._cursors.clear()
        _close(left)
        return len(left)

    def close_server_cursors(self) -> int:
        """Close those that a task left open on PostgreSQL; how many. Only asked of the server when
        the task had any."""
        used = self._count_server_cursors()
        if used == self._server_cursors:
            return 0
        self._server_cursors = used
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_cursors WHERE is_holdable")
            found = int(cursor.fetchone()[0])
            if found:
                cursor.execute("CLOSE ALL")
        return found

    def _count_server_cursors(self) -> int:
        """Those that Django's connection and the driver's have given so far."""
        return self.named + int(getattr(self.connection, "_named_cursor_idx", 0))

    def _added(self) -> list[str]:
        """Attributes that a task has added; Django's own are cached properties."""
        kind = type(self.connection)
        added = [
            name
            for name in self._attributes
            if name not in self._named_attributes and not hasattr(kind, name)
        ]
        if not added:
            self._attribute_count = len(self._attributes)
        return added

    def _left(self) -> tuple[list[str], bool]:
        connection = self.connection
        left = []
        lost = connection.in_atomic_block or bool(connection.run_on_commit)
        with contextlib.suppress(Exception):  # as above
            now = self._state(connection)
            if now[0] is None:
                pass
            elif now[0] is self._clean[0]:
                if len(now) > len(_STATE):
                    lost = lost or now[len(_STATE)] != self._clean[len(_STATE)]
                else:
                    lost = lost or not connection.autocommit
                if now[len(_STATE) + 1 :] != self._clean[len(_STATE) + 1 :]:
                    left.append("an attribute of the driver's connection changed")
            else:
                left.append("another connection in its place")
        # Without autocommit by the settings, a transaction is open after every statement.
        lost = lost and bool(self._clean[1])
        if lost:
            left.insert(0, "a transaction open")
        elif connection.connection is not None and connection.autocommit != self._clean[1]:
            left.insert(0, "autocommit changed")
        if any(wrapper not in self._wrappers for wrapper in connection.execute_wrappers):
            left.append("an execute_wrapper")
        if connection.force_debug_cursor:
            left.append("force_debug_cursor on")
        left += [f"the attribute {name}" for name in self._added()]
        if self.changed and connection.connection is not None:
            left.append(f"the session changed ({self.changed} …)")
        return left, lost

    def _reset(self) -> None:
        """What Django itself keeps of a transaction."""
        connection = self.connection
        connection.in_atomic_block = connection.closed_in_transaction = False
        connection.needs_rollback = connection.force_debug_cursor = False
        connection.savepoint_ids, connection.atomic_blocks = [], []
        connection.run_on_commit = []
        connection.execute_wrappers[:] = self._wrappers
        for name in self._added():
            delattr(connection, name)

    def _is_in_statement(self) -> bool:
        """Whether psycopg is in one, such as a `stream` that was not read to its end, or in a
        pipeline."""
        raw = self.connection.connection
        if self.connection.vendor != "postgresql" or raw.closed:
            return False
        return raw.info.transaction_status == _ACTIVE or getattr(raw, "_pipeline", None) is not None

    def _rest(self) -> None:
        """It is closed: only what Django keeps of it can be changed."""
        self._state = attrgetter(*_STATE_CLOSED)
        self._clean = (None, False, [], self._wrappers)
        self.changed = ""

    def _discard(self) -> None:
        """Close it; the next task gets another."""
        connection, raw = self.connection, self._clean[0]
        self._reset()
        for one in {id(c): c for c in (raw, connection.connection) if c is not None}.values():
            if one is not connection.connection or getattr(one, "_pool", None) is not None:
                # Not Django's any more; or a pool's, which takes back what is closed to forget it.
                with contextlib.suppress(Exception):
                    one.close()
        with contextlib.suppress(DatabaseError):
            connection.close()
        self.changed = ""
        if connection.connection is None and connections[connection.alias] is connection:
            del connections[connection.alias]  # with whatever else was set on it
            self.discarded = True

    # ------------------------------------------------------------------ in threads of others

    def close_idle(self, now: float) -> Any:
        """Take the driver's connection away from its thread if that doesn't use it any more."""
        connection = self.connection
        raw = connection.connection
        if raw is None or not self.owner.lock.acquire(blocking=False):
            return None
        try:
            if self.owner.thread.is_alive():
                cursor = self._cursor and self._cursor()
                aged = connection.close_at is not None and now >= connection.close_at
                least = _EVERY if self.owner.shared else _IDLE
                if cursor is not None or not aged or now - self.used < least:
                    return None
                if not self.is_as_it_was():
                    return None
            connection.connection = None
            return raw
        finally:
            self.owner.lock.release()


def _noticing(factory: Any, watched: Watched, *, named: bool = False) -> Any:
    """psycopg's class of cursors, which shows the statements of those as well that a task gets
    from the driver's connection itself."""
    plain = getattr(factory, "_jobs_plain", factory)  # a pool's connection has been here before

    class Noticing(plain):  # type: ignore[misc, valid-type]
        _jobs_plain = plain

        def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            watched.look(query)
            watched.named += named
            return super().execute(query, *args, **kwargs)

        def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            watched.look(query)
            return super().executemany(query, *args, **kwargs)

        def stream(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            watched.look(query)
            return super().stream(query, *args, **kwargs)

        def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            watched.look(statement)
            return super().copy(statement, *args, **kwargs)

    return Noticing


def _text_of(sql: Any) -> str:
    """Of psycopg's composed statements."""
    as_string = getattr(sql, "as_string", None)
    try:
        return str(as_string(None) if as_string else sql)
    except Exception:  # noqa: BLE001  it needs a connection: what it is can't be told
        return repr(sql)


# ------------------------------------------------------------------------------ threads


class _Thread:
    """A thread's connections."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.watched: list[Watched] = []
        #: Whether its end and its connections are looked after by a runner.
        self.ours = False
        #: Whether it is one of our `Executor`.
        self.shared = False
        #: Held while it works with the database.
        self.lock = threading.RLock()


class _Here(threading.local):
    def __init__(self) -> None:
        self.thread = _Thread()


#: How the names of the worker's own threads begin.
_OWN = "jobs-"

_here = _Here()
#: Threads that are not ours, with a connection.
_others: set[_Thread] = set()
#: Cursors that async tasks have executed statements with, by the task's id.
_unread: dict[str, list[weakref.ref[Any]]] = {}
_keeper: threading.Thread | None = None
_starting = threading.Lock()


def claim_thread() -> None:
    """This thread runs tasks, and looks at its connections after each."""
    _here.thread.ours = True


def after_call(sent: Message | None) -> TransactionLeftOpen | None:
    """Make this thread's connections what they were; the error when a transaction was open.

    ``sent``: the task that worked with them; None: it isn't known.
    """
    if not _here.thread.watched:
        return None  # the usual case, at every task
    return _after_call(_here.thread, sent)


def _after_call(thread: _Thread, sent: Message | None) -> TransactionLeftOpen | None:
    error = None
    who = "a call beside the tasks" if sent is None else f"task {sent.task}[{sent.id}]"
    for watched in [*thread.watched]:
        found = watched.close_cursors()
        if not watched.is_as_it_was():
            alias = watched.connection.alias
            left, lost = watched.restore()
            if watched.discarded:
                thread.watched.remove(watched)
            if left:
                log.warning(
                    "%s left %s on database %r: %s",
                    who,
                    " and ".join(left),
                    alias,
                    "what it wrote there since is rolled back"
                    if lost
                    else "the next task finds it as it was",
                )
            if lost:
                error = TransactionLeftOpen(
                    f"{who} left a transaction open on database {alias!r}: what it wrote there is "
                    "rolled back. Commit it, or use transaction.atomic() in a with statement."
                )
        elif thread.ours:
            try:
                found += watched.close_server_cursors()
            except DatabaseError:
                watched.restore()
        if found:
            log.warning("%s left %d cursors open: they are closed", who, found)
    return error


def close_unread(sent: Message) -> None:
    """Close the cursors that an async task, which has ended, has left to somebody, in the thread in
    which it used the ORM. Until then `aiterator` may read on, call by call."""
    if not _unread:
        return
    if left := _still_held(_unread.pop(sent.id, ())):
        log.warning(
            "task %s[%s] left %d cursors open: they are closed", sent.task, sent.id, len(left)
        )
        SyncToAsync.single_thread_executor.submit(_close, left)


def _still_held(cursors: Iterable[weakref.ref[Any]]) -> list[Any]:
    return [*{id(c.cursor): c for one in cursors if (c := one()) is not None}.values()]


def _close(cursors: list[Any]) -> None:
    for cursor in cursors:
        with contextlib.suppress(Exception):  # closed already, or its connection is
            cursor.close()


def _opened(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """A receiver of `connection_created`."""
    thread = _here.thread
    if not (thread.ours or thread.shared) and thread.thread.name.startswith(_OWN):
        return  # no task runs there
    known = [watched for watched in thread.watched if watched.connection is connection]
    if known:
        known[0].begin()
    else:
        thread.watched.append(Watched(connection, thread))
    if not thread.ours:
        _keep(thread)


class Executor(ThreadPoolExecutor):
    """Threads in which tasks use the ORM by `sync_to_async` or `asyncio.to_thread`: after each call
    their connections are what they were, whichever task's is the next."""

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads, "jobs-orm", initializer=_share_thread)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        running = current.get()
        return super().submit(_call, running and running[0], fn, args, kwargs)


def _share_thread() -> None:
    _here.thread.shared = True


def _call(
    sent: Message | None, fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    thread = _here.thread
    with thread.lock:
        try:
            result = fn(*args, **kwargs)
        except BaseException:
            after_call(sent)
            raise
        if error := after_call(sent):
            raise error
        return result


def _keep(thread: _Thread) -> None:
    """Close a thread's connections when it doesn't use them any more."""
    global _keeper
    with _starting:
        _others.add(thread)
        if _keeper is None:
            _keeper = threading.Thread(target=_close_idle, name="jobs-connections", daemon=True)
            _keeper.start()


def _close_idle() -> None:
    global _keeper
    taken: list[Any] = []
    while True:
        time.sleep(_EVERY)
        # Taken away a moment ago: who was just about to use one has had the time to.
        for raw in taken:
            with contextlib.suppress(Exception):
                raw.close()
        now = time.monotonic()
        with _starting:
            idle = [watched.close_idle(now) for thread in _others for watched in thread.watched]
            taken = [raw for raw in idle if raw is not None]
            for thread in [*_others]:
                if all(watched.connection.connection is None for watched in thread.watched):
                    _others.discard(thread)
            if not _others and not taken:
                _keeper = None
                return


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Look after the connections of this process while a child works in it."""
    connections.close_all()  # opened while the code was loaded, and not watched
    # Last: other receivers may set up a new connection.
    connection_created.connect(_opened, dispatch_uid="jobs.database")
    former = SyncToAsync.single_thread_executor
    SyncToAsync.single_thread_executor = Executor(1)
    try:
        yield
    finally:
        connection_created.disconnect(dispatch_uid="jobs.database")
        SyncToAsync.single_thread_executor.shutdown(wait=False)
        SyncToAsync.single_thread_executor = former
        for watched in _here.thread.watched:
            with contextlib.suppress(ValueError):
                watched.connection.execute_wrappers.remove(watched)
        _here.thread.watched = []
        _here.thread.ours = False
