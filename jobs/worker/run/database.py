"""One database connection: what a task can change about it, and how that is undone.

Looking at it after a task costs no round trip: the driver knows whether a transaction is open, and
attributes are read from the connection. What only the server knows (a role, a setting, a lock) is
inferred from the statements that were sent. `isolation` says when to look.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.running.request import current

#: Least time, in seconds, between two looks at a thread's connections.
EVERY = 1.0
#: Seconds after which an unused connection of a thread that a task started may be closed.
_IDLE = 5.0

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

#: Statements known to change nothing of a session, by vendor: so many of each at most, and none
#: that is longer.
_known: dict[str, set[str]] = {}
_MOST_KNOWN = 2000
_LONGEST_KNOWN = 20_000


def changes_session(statement: str, vendor: str) -> bool:
    """Whether a statement may leave more behind than rows and tables: a setting, a role, a lock, a
    temporary table, a prepared statement. Yes for any statement that isn't known to be plain."""

    def plainly(found: re.Match[str]) -> str:
        if found["comment"]:
            return " "
        return _NOT_OF_NAMES.sub("_", found["name"]) if found["name"] else "''"

    text = _OPAQUE.sub(plainly, statement)
    if not text.strip():
        return False
    plain = (
        _PLAIN.match(text)
        or (vendor in _DRIVERS and _BEGINS.match(text))
        or (vendor == "postgresql" and _PLAIN_ON_POSTGRESQL.match(text))
    )
    return not plain or bool(_OF_SESSION.search(_SET_LOCAL_CONFIG.sub("", text)))


# ------------------------------------------------------------------------------ connections

#: Cursors noted of one task, until those that nobody has any more are forgotten.
_MOST_CURSORS = 100

#: Cursors that async tasks have executed statements with, by the task's id.
unread: dict[str, list[weakref.ref[Any]]] = {}

#: The attributes that make up the state of a connection, of any vendor.
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
#: The same for a closed connection.
_STATE_CLOSED = ("connection", "force_debug_cursor", "run_on_commit", "execute_wrappers")
#: What drivers know without asking the server; the first says whether a transaction is open.
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
#: The same for psycopg 2.
_PSYCOPG2 = (
    "connection.info.transaction_status",
    "isolation_level",
    "connection.autocommit",
    "connection.isolation_level",
    "connection.readonly",
    "connection.deferrable",
    "connection.cursor_factory",
)
#: libpq's number for a connection in which a command is in progress.
_ACTIVE = 1


@dataclass(eq=False, slots=True)
class Owner:
    """A thread with its connections; made in that thread."""

    thread: threading.Thread = field(default_factory=threading.current_thread)
    watched: list[Watched] = field(default_factory=list)
    #: It is one of the worker's runners, which look at their connections themselves.
    ours: bool = False
    #: It is a thread of `isolation.Executor`.
    shared: bool = False
    #: Held while the thread works with the database.
    lock: Any = field(default_factory=threading.RLock)


class Watched:
    """A connection that was opened in this process, and how it was when it was new.

    It is the first of the connection's `execute_wrappers`, so it sees the statements.
    """

    def __init__(self, connection: BaseDatabaseWrapper, owner: Owner) -> None:
        self.connection = connection
        self.owner = owner
        self._plain = _known.setdefault(connection.vendor, set())
        #: Django has forgotten it; the next task gets another.
        self.discarded = False
        connection.execute_wrappers.insert(0, self)
        self.begin()

    def begin(self) -> None:
        """Remember how the connection is now: new."""
        connection = self.connection
        driver = _DRIVERS.get(connection.vendor, ())
        raw = connection.connection
        if connection.vendor == "postgresql":
            if not hasattr(raw, "read_only"):
                driver = _PSYCOPG2
            elif hasattr(raw, "_pipeline"):
                # A pipeline that was begun and not ended: what is sent in it isn't committed.
                driver = (*driver, "connection._pipeline")
            raw.cursor_factory = _noticing(raw.cursor_factory, self)
            if hasattr(raw, "server_cursor_factory"):
                raw.server_cursor_factory = _noticing(raw.server_cursor_factory, self, named=True)
        self._state: Callable[[Any], tuple[Any, ...]] = attrgetter(*_STATE, *driver)
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
        #: The beginning of the statement that changed the session; "": none has.
        self.changed = ""
        #: How many statements were executed by server-side cursors of the driver's own making.
        self.named = 0
        self._server_cursors = self._count_server_cursors()
        #: Attributes of Django's connection, to which a task may add some.
        self._attributes = vars(connection)
        self._named_attributes = set(self._attributes)
        self._attribute_count = len(self._attributes)
        #: When the last statement ended (monotonic), and its cursor.
        self.used = time.monotonic()
        self._cursor: weakref.ref[Any] | None = None
        #: The cursors of this task's statements, noted where an unread cursor holds a lock in the
        #: database: on SQLite. On PostgreSQL all but named cursors have all their rows at once.
        self._cursors: list[weakref.ref[Any]] = []
        self._notes_cursors = connection.vendor != "postgresql"

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        self.look(sql)
        if self.owner.ours:
            if self._notes_cursors:
                if len(self._cursors) >= _MOST_CURSORS:
                    self._cursors = [one for one in self._cursors if one() is not None]
                self._cursors.append(weakref.ref(context["cursor"]))
            return self._execute(execute, sql, params, many, context)
        with self.owner.lock:
            try:
                return self._execute(execute, sql, params, many, context)
            finally:
                cursor = self._cursor = weakref.ref(context["cursor"])
                self.used = time.monotonic()
                named = getattr(context["cursor"].cursor, "name", None)
                if self.owner.shared and (named or self._notes_cursors) and (who := current.get()):
                    unread.setdefault(who[0].id, []).append(cursor)

    def _execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        try:
            return execute(sql, params, many, context)
        except (OperationalError, InterfaceError):
            # A connection that was cut fails once: whoever uses it next gets a new one.
            connection = self.connection
            if connection.autocommit and not connection.in_atomic_block:
                closed = None
                if connection.vendor == "postgresql":  # psycopg knows; others must ask the server
                    closed = getattr(connection.connection, "closed", None)
                if not connection.is_usable() if closed is None else closed:
                    connection.close()
            raise

    def look(self, sql: Any) -> None:
        """Note whether a statement that is about to be executed changes the session."""
        if isinstance(sql, bytes):
            sql = sql.decode(errors="replace")
        elif not isinstance(sql, str):  # a composed statement of psycopg's
            as_string = getattr(sql, "as_string", None)
            try:
                sql = str(as_string(None) if as_string else sql)
            except Exception:  # noqa: BLE001  it needs a connection: what it is can't be told
                sql = repr(sql)
        if sql in self._plain:
            return
        if changes_session(sql, self.connection.vendor):
            self.changed = self.changed or " ".join(sql.split())[:60]
        elif len(sql) <= _LONGEST_KNOWN:
            if len(self._plain) >= _MOST_KNOWN:
                self._plain.clear()
            self._plain.add(sql)

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
        """Make it what it was. Return what the task left, in words, and whether that included a
        transaction in which it may have written something."""
        connection, raw = self.connection, self._clean[0]
        left, lost = self._left()
        if connection.connection is None:  # closed, as anybody may: only Django's part is left
            self._reset()
            self._state = attrgetter(*_STATE_CLOSED)
            self._clean = (None, False, [], self._wrappers)
            self.changed = ""
            return left, lost
        # A rollback would wait for a statement that is still being executed.
        if connection.connection is raw and not self.changed and not self._is_busy():
            with contextlib.suppress(DatabaseError):
                self._reset()
                connection.rollback()
                connection.set_autocommit(connection.settings_dict["AUTOCOMMIT"])
            if self.is_as_it_was():
                return left, lost
        # Else close it; the next task gets another.
        self._reset()
        for one in {id(c): c for c in (raw, connection.connection) if c is not None}.values():
            if one is not connection.connection or getattr(one, "_pool", None) is not None:
                # Django has lost it; or it is a pool's, which only forgets what comes back closed.
                with contextlib.suppress(Exception):
                    one.close()
        with contextlib.suppress(DatabaseError):
            connection.close()
        self.changed = ""
        if connection.connection is None and connections[connection.alias] is connection:
            del connections[connection.alias]  # with whatever else was set on it
            self.discarded = True
        return left, lost

    def close_cursors(self) -> int:
        """Close the task's cursors that somebody still has; return how many."""
        if not self._cursors:
            return 0
        left = still_held(self._cursors)
        self._cursors.clear()
        close(left)
        return len(left)

    def close_server_cursors(self) -> int:
        """Close the server's cursors that a task left open on PostgreSQL; return how many. The
        server is asked only when the task had any."""
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
        """How many of them Django's connection and the driver's have made so far."""
        return self.named + int(getattr(self.connection, "_named_cursor_idx", 0))

    def _added(self) -> list[str]:
        """The attributes that a task has added. Django adds some itself: cached properties."""
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
        """What `restore` returns."""
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
        """Forget what Django keeps of a transaction, and what the task added."""
        connection = self.connection
        connection.in_atomic_block = connection.closed_in_transaction = False
        connection.needs_rollback = connection.force_debug_cursor = False
        connection.savepoint_ids, connection.atomic_blocks = [], []
        connection.run_on_commit = []
        connection.execute_wrappers[:] = self._wrappers
        for name in self._added():
            delattr(connection, name)

    def _is_busy(self) -> bool:
        """Whether psycopg is in a statement, such as a `stream` that was not read to its end, or in
        a pipeline."""
        raw = self.connection.connection
        if self.connection.vendor != "postgresql" or raw.closed:
            return False
        return raw.info.transaction_status == _ACTIVE or getattr(raw, "_pipeline", None) is not None

    # ------------------------------------------------------------------ in threads of others

    def take_idle(self, now: float) -> Any:
        """Take the driver's connection away from its thread, and return it, if the thread doesn't
        use it any more."""
        connection = self.connection
        raw = connection.connection
        if raw is None or not self.owner.lock.acquire(blocking=False):
            return None
        try:
            if self.owner.thread.is_alive():
                cursor = self._cursor and self._cursor()
                aged = connection.close_at is not None and now >= connection.close_at
                least = EVERY if self.owner.shared else _IDLE
                if cursor is not None or not aged or now - self.used < least:
                    return None
                if not self.is_as_it_was():
                    return None
            connection.connection = None
            return raw
        finally:
            self.owner.lock.release()


def _noticing(factory: Any, watched: Watched, *, named: bool = False) -> Any:
    """psycopg's class of cursors, made to show their statements to ``watched``: also those of
    cursors that a task gets from the driver's connection itself."""
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


def still_held(cursors: Iterable[weakref.ref[Any]]) -> list[Any]:
    """The cursors that somebody still has, each once."""
    return [*{id(c.cursor): c for one in cursors if (c := one()) is not None}.values()]


def close(cursors: list[Any]) -> None:
    for cursor in cursors:
        with contextlib.suppress(Exception):  # closed already, or its connection is
            cursor.close()
