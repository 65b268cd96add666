"""The ledger in partitions: a table for each day, week or month of its ids, on PostgreSQL.

Our ids begin with their time, so a range of ids is a time. All other rows are in one more table,
the rest, which is the default partition: what was recorded before, ids of other senders, and what
outlives its own partition. So each row has its place, and nothing here blocks a writer.

A step that needs an exclusive lock waits for it a few hundredths of a second at most, and tries
again later: a session that waits for such a lock holds up all that come after it.
"""

from __future__ import annotations

import datetime as dt
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from django.db import OperationalError, connections, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from jobs.exceptions import ConfigurationError
from jobs.ledger.outcomes import alias, results
from jobs.ledger.refusals import sqlstate
from jobs.models import TaskAttempt, TaskResult
from jobs.states import TERMINAL, State

_T = TypeVar("_T")

TABLE = TaskResult._meta.db_table
#: The default partition.
REST = f"{TABLE}_rest"

#: How long a partition is → how far ahead partitions are made.
EVERY = {"day": dt.timedelta(days=14), "week": dt.timedelta(weeks=6), "month": dt.timedelta(124)}

#: The first partition begins so much later. A command that is killed leaves a constraint that
#: refuses ids of the partitions to come: each night's pruning removes it.
_MARGIN = dt.timedelta(days=2)

#: Milliseconds to wait for a lock, how often to try, and seconds between two tries.
_LOCK_MS, _TRIES, _PAUSE = 50, 100, 0.5
#: Most rows that are moved while others wait.
_MOVED = 1000

#: The end of a name: how long the partition is, and the day it begins with.
_NAME = re.compile(rf"{TABLE}_(d|w|m)(\d{{8}})")
_BOUNDS = re.compile(r"FOR VALUES FROM \('([0-9a-f-]{36})'\) TO \('([0-9a-f-]{36})'\)")
#: The constraint on the rest that spares PostgreSQL from reading it while others wait.
_WINDOW = f"{TABLE}_window"
#: What is put behind the name of a table that is about to be attached, or to be dropped.
_NEW, _LEAVING = "_new", "_leaving"
#: What is put behind the name of an index of the rest.
_OF_REST = "_rest"


class Partition(NamedTuple):
    """A table of results, and what ids it has: from ``start`` to below ``end``."""

    name: str
    start: str
    end: str

    @property
    def every(self) -> str:
        """How long it is; "" if it was not made here."""
        found = _NAME.fullmatch(self.name)
        return next((e for e in EVERY if found and e[0] == found[1]), "")

    def rows(self) -> QuerySet[TaskResult]:
        return results().filter(id__gte=self.start, id__lt=self.end)


class Ledger(NamedTuple):
    """How the table of results is stored."""

    #: Whether it is partitioned.
    parted: bool
    #: In their order, without the rest.
    partitions: Sequence[Partition] = ()

    def floor(self, task_id: str) -> str:
        """This id, or the first one of the partition that has it."""
        return next((p.start for p in self.partitions if p.start <= task_id < p.end), task_id)


def first_id(at: dt.datetime) -> str:
    """The lowest id that we could make at this moment."""
    milliseconds = min(max(0, int(at.timestamp() * 1000)), 2**48 - 1)
    return str(uuid.UUID(int=milliseconds << 80))


def time_of(first: str) -> dt.datetime:
    """The moment whose `first_id` this is."""
    return dt.datetime.fromtimestamp((uuid.UUID(first).int >> 80) / 1000, dt.UTC)


def next_start(at: dt.datetime, every: str) -> dt.datetime:
    """The first day, week or month that begins after this moment, by UTC."""
    day = at.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if every == "day":
        return day + dt.timedelta(days=1)
    if every == "week":
        return day + dt.timedelta(days=7 - day.weekday())
    return (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1)


def planned(start: dt.datetime, until: dt.datetime, every: str) -> Iterator[Partition]:
    """Partitions from ``start``, a midnight, to the first end after ``until``. The first one may be
    shorter than the others."""
    while start <= until:
        end = next_start(start, every)
        name = f"{TABLE}_{every[0]}{start:%Y%m%d}"
        yield Partition(name, first_id(start), first_id(end))
        start = end


def read() -> Ledger:
    """How the table is stored now; one query, and none on other databases than PostgreSQL."""
    if connections[alias()].vendor != "postgresql":
        return Ledger(parted=False)
    with connections[alias()].cursor() as cursor:
        return _read(cursor)


def _read(cursor: Any) -> Ledger:
    cursor.execute(
        "SELECT t.relkind = 'p', c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_class t "
        "LEFT JOIN pg_inherits i ON i.inhparent = t.oid LEFT JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE t.oid = to_regclass(%s)",
        [TABLE],
    )
    found = cursor.fetchall()
    bounds = [(name, _BOUNDS.fullmatch(bound or "")) for _parted, name, bound in found]
    partitions = [Partition(name, *bound.groups()) for name, bound in bounds if bound]
    return Ledger(any(parted for parted, *_ in found), sorted(partitions, key=lambda p: p.start))


# ------------------------------------------------------------------ to partitions, and back


def obstacles() -> list[str]:
    """A sentence for each thing that keeps the table from being partitioned, or made one again."""
    connection = connections[alias()]
    if connection.vendor != "postgresql":
        return [f"Only PostgreSQL has partitions as they are needed here, not {connection.vendor}."]
    found = []
    with connection.cursor() as cursor:
        for question, sentence in _OBSTACLES:
            cursor.execute(question, {"table": TABLE})
            if names := ", ".join(sorted(str(name) for (name,) in cursor.fetchall())):
                found.append(sentence.format(names))
    return found


#: What would stay with the old table, or breaks when that has another name.
_OBSTACLES = (
    (
        "SELECT relowner::regrole FROM pg_class WHERE oid = to_regclass(%(table)s) "
        "AND NOT pg_has_role(relowner, 'USAGE')",
        f"The table {TABLE} belongs to {{}}: run the command as that user.",
    ),
    (
        "SELECT conrelid::regclass FROM pg_constraint WHERE contype = 'f' "
        "AND confrelid = to_regclass(%(table)s)",
        "There are foreign keys to results, of {}. Let them do without a constraint "
        "(db_constraint=False), since results are deleted when they are old.",
    ),
    (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(%(table)s) AND NOT tgisinternal",
        "The table has triggers: {}. Drop them, and make them anew afterwards.",
    ),
    (
        "SELECT DISTINCT r.ev_class::regclass FROM pg_depend d "
        "JOIN pg_rewrite r ON r.oid = d.objid "
        "WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass "
        "AND d.refobjid = to_regclass(%(table)s) AND r.ev_class <> d.refobjid",
        "There are views of the table: {}. Drop them, and make them anew afterwards.",
    ),
    (
        "SELECT p.pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid "
        "WHERE r.prrelid = to_regclass(%(table)s)",
        "The table is published: {}. Take it out, and put it in again afterwards.",
    ),
    (
        "SELECT relname FROM pg_class WHERE oid = to_regclass(%(table)s) AND relrowsecurity",
        "The table {} has policies for its rows, which would not come along.",
    ),
    (
        "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = to_regclass(%(table)s) "
        "AND NOT indisvalid",
        "There are invalid indexes: {}. Make them anew: REINDEX INDEX CONCURRENTLY.",
    ),
)


def make_parted() -> None:
    """Put a partitioned table in the place of the table, which becomes its rest. That takes
    milliseconds, however large the table is: no row is read. Raises `ConfigurationError`."""
    if read().parted:
        return
    if problems := obstacles():
        raise ConfigurationError(" ".join(problems))
    _briefly(_swap, f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")


def _swap(cursor: Any) -> None:
    if _read(cursor).parted:
        return
    schema, owner, me = _whose(cursor)
    cursor.execute(
        "SELECT i.relname, pg_get_indexdef(i.oid), c.conname, pg_get_constraintdef(c.oid) "
        "FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid LEFT JOIN pg_constraint c "
        "ON c.conindid = i.oid AND c.conrelid = x.indrelid WHERE x.indrelid = to_regclass(%s)",
        [TABLE],
    )
    indexes = cursor.fetchall()
    cursor.execute(
        "SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, "
        "a.privilege_type, a.is_grantable FROM pg_class t, aclexplode(t.relacl) a "
        "WHERE t.oid = to_regclass(%s)",
        [TABLE],
    )
    rights = cursor.fetchall()
    for index, *_ in indexes:
        cursor.execute(f'ALTER INDEX {schema}."{index}" RENAME TO "{_renamed(index)}"')
    cursor.execute(f"ALTER TABLE {schema}.{TABLE} RENAME TO {REST}")
    cursor.execute(
        f"CREATE TABLE {schema}.{TABLE} (LIKE {schema}.{REST} INCLUDING ALL EXCLUDING INDEXES "
        "EXCLUDING STATISTICS) PARTITION BY RANGE (id)"
    )
    # Under the names that migrations know.
    for _index, definition, constraint, of_constraint in indexes:
        cursor.execute(
            f'ALTER TABLE {schema}.{TABLE} ADD CONSTRAINT "{constraint}" {of_constraint}'
            if constraint
            else definition
        )
    for grantee, right, may_grant in rights:
        on = " WITH GRANT OPTION" if may_grant else ""
        cursor.execute(f"GRANT {right} ON {schema}.{TABLE} TO {grantee}{on}")
    if owner != me:
        cursor.execute(f"ALTER TABLE {schema}.{TABLE} OWNER TO {owner}")
    cursor.execute(f"ALTER TABLE {schema}.{TABLE} ATTACH PARTITION {schema}.{REST} DEFAULT")


def _whose(cursor: Any) -> tuple[str, str, str]:
    """The table's schema and its owner, quoted, and who we are."""
    cursor.execute(
        "SELECT quote_ident(n.nspname), quote_ident(r.rolname), quote_ident(current_user) "
        "FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace "
        "JOIN pg_roles r ON r.oid = t.relowner WHERE t.oid = to_regclass(%s)",
        [TABLE],
    )
    found: tuple[str, str, str] = cursor.fetchone()
    return found


def _renamed(index: str) -> str:
    return f"{index[: 63 - len(_OF_REST)]}{_OF_REST}"


def make_whole(done: Callable[[str], object] = lambda name: None) -> None:
    """Make it one table again. Others wait while the rows of a partition are copied: one at a time.

    ``done``: called with the name of each partition. Raises `ConfigurationError`.
    """
    if not read().parted:
        return
    if problems := obstacles():
        raise ConfigurationError(" ".join(problems))
    tidy(Q(id__gt=""))
    for partition in read().partitions:
        _briefly(partial(_join, partition=partition), _EXCLUSIVE)
        done(partition.name)
    _briefly(_swap_back, _EXCLUSIVE)


def _join(cursor: Any, partition: Partition) -> None:
    if partition not in _read(cursor).partitions:
        return
    schema, *_ = _whose(cursor)
    name = f'{schema}."{partition.name}"'
    cursor.execute(f"ALTER TABLE {schema}.{TABLE} DETACH PARTITION {name}")
    _copy(cursor, name, TABLE)
    cursor.execute(f"DROP TABLE {name}")


def _swap_back(cursor: Any) -> None:
    found = _read(cursor)
    if not found.parted:
        return
    cursor.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(%s)",
        [TABLE],
    )
    # They would be dropped with the table.
    if others := sorted(
        {name for (name,) in cursor.fetchall()} - {REST, f"{_whose(cursor)[0]}.{REST}"}
    ):
        raise ConfigurationError(
            f"There are other partitions: {', '.join(others)}. Detach those that were not made by "
            "this command, and run it again."
        )
    schema, *_ = _whose(cursor)
    cursor.execute(
        "SELECT own.relname, whole.relname FROM pg_index w JOIN pg_inherits i "
        "ON i.inhparent = w.indexrelid JOIN pg_class whole ON whole.oid = w.indexrelid "
        "JOIN pg_class own ON own.oid = i.inhrelid WHERE w.indrelid = to_regclass(%s)",
        [TABLE],
    )
    indexes = cursor.fetchall()
    cursor.execute(f"ALTER TABLE {schema}.{TABLE} DETACH PARTITION {schema}.{REST}")
    cursor.execute(f"DROP TABLE {schema}.{TABLE}")
    cursor.execute(f"ALTER TABLE {schema}.{REST} RENAME TO {TABLE}")
    for own, whole in indexes:
        cursor.execute(f'ALTER INDEX {schema}."{own}" RENAME TO "{whole}"')


# ------------------------------------------------------------------ one more, one less


def extend(
    now: dt.datetime, every: str = "", done: Callable[[str], object] = lambda what: None
) -> list[Partition]:
    """Make the partitions of the time to come, and return them. Nobody waits for it: the rest is
    read without a lock that a writer needs.

    ``every``: how long they are; by default as long as the last one. ``done``: called before each
    step, with its name. Raises `ConfigurationError` when rows are in the way.
    """
    made = to_make(read(), now, every)
    if not made:
        return []
    if _left(_NEW):
        _briefly(_close_window, _SHARED, _REST_ALONE)
    done(f"make {len(made)} tables")
    try:
        with connections[alias()].cursor() as cursor:
            for partition in made:
                _make(cursor, partition)
        done("set results aside that belong there")
        _briefly(partial(_open_window, made=made), _SHARED, _REST_ALONE)
        done(f"read {REST}, to know that no other result belongs there")
        with transaction.atomic(using=alias()), connections[alias()].cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")
            cursor.execute(f"ALTER TABLE {REST} VALIDATE CONSTRAINT {_WINDOW}")
        done("attach them")
        _briefly(partial(_attach, made=made), _SHARED, _REST_ALONE)
    except BaseException:
        _briefly(_close_window, _SHARED, _REST_ALONE)
        raise
    done("analyze the table")
    with connections[alias()].cursor() as cursor:
        cursor.execute(f"ANALYZE {TABLE}")  # autovacuum doesn't, of a partitioned table
    return made


def to_make(found: Ledger, now: dt.datetime, every: str = "") -> list[Partition]:
    """The partitions that `extend` would make."""
    last = found.partitions[-1] if found.partitions else None
    every = every or (last.every if last else "")
    if not every:
        return []
    start = time_of(last.end) if last else now
    if start < now + _MARGIN / 2:
        # Whatever was sent meanwhile is in the rest, and stays there.
        start = next_start(now + _MARGIN - dt.timedelta(days=1), "day")
    return list(planned(start, now + EVERY[every], every))


def is_short(found: Ledger, now: dt.datetime) -> bool:
    """Whether it is time to make more partitions: less than half as many lie ahead as are made."""
    last = found.partitions[-1] if found.partitions else None
    return bool(last and last.every and time_of(last.end) < now + EVERY[last.every] / 2)


def _make(cursor: Any, partition: Partition) -> None:
    schema, owner, me = _whose(cursor)
    name = f'{schema}."{partition.name}{_NEW}"'
    cursor.execute(
        "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = to_regclass(%s)", [REST]
    )
    (options,) = cursor.fetchone()
    like = f"(LIKE {schema}.{TABLE} INCLUDING ALL)"
    stored = f" WITH ({options})" if options else ""
    cursor.execute(f"CREATE TABLE {name} {like}{stored}")
    if owner != me:
        cursor.execute(f"ALTER TABLE {name} OWNER TO {owner}")


def _open_window(cursor: Any, made: Sequence[Partition]) -> None:
    """Keep ids of these partitions out of the rest, and set aside the rows that it has of them:
    with ids of other senders that happen to sort there."""
    start, end = made[0].start, made[-1].end
    cursor.execute(
        f"SELECT count(*), count(*) FILTER (WHERE state IN ({_OPEN})) FROM (SELECT state FROM "
        f"{REST} WHERE id >= %s AND id < %s LIMIT {_MOVED + 1}) AS found",
        [start, end],
    )
    count, unfinished = cursor.fetchone()
    if unfinished or count > _MOVED:
        which = f"id >= '{start}' AND id < '{end}'"
        raise ConfigurationError(
            f"{count} results have ids of the partitions to come ({which}), and {unfinished} of "
            "them have not ended. Up to 1,000 that have ended are moved. Is the clock of a sender "
            "wrong? Try again when they have ended or are deleted."
        )
    cursor.execute(
        f"ALTER TABLE {REST} ADD CONSTRAINT {_WINDOW} "
        f"CHECK (id < '{start}' OR id >= '{end}') NOT VALID"
    )
    for one in made if count else ():
        inside = f"id >= '{one.start}' AND id < '{one.end}'"
        _copy(cursor, REST, f'"{one.name}{_NEW}"', inside)
        cursor.execute(f"DELETE FROM {REST} WHERE {inside}")


def _attach(cursor: Any, made: Sequence[Partition]) -> None:
    for one in made:
        cursor.execute(
            f'ALTER TABLE {TABLE} ATTACH PARTITION "{one.name}{_NEW}" '
            f"FOR VALUES FROM ('{one.start}') TO ('{one.end}')"
        )
        cursor.execute(f'ALTER TABLE "{one.name}{_NEW}" RENAME TO "{one.name}"')
    cursor.execute(f"ALTER TABLE {REST} DROP CONSTRAINT {_WINDOW}")


def _close_window(cursor: Any) -> None:
    """Undo `_open_window`, and drop the tables."""
    cursor.execute(f"ALTER TABLE {REST} DROP CONSTRAINT IF EXISTS {_WINDOW}")
    for name in _left(_NEW):
        _copy(cursor, f'"{name}"', REST)
        cursor.execute(f'DROP TABLE "{name}"')


def drop(partition: Partition, stays: Q) -> None:
    """Drop a partition. Rows that ``stays`` fits go to the rest: those that have not ended at the
    same moment, the others right after it."""
    _briefly(partial(_detach, partition=partition), f"LOCK TABLE ONLY {TABLE} IN {_FOR_ITSELF}")
    _finish_dropping(stays)


def tidy(stays: Q) -> None:
    """Clear up what a process that was killed has left. ``stays``: as for `drop`."""
    if _left(_NEW):
        _briefly(_close_window, _SHARED, _REST_ALONE)
    _finish_dropping(stays)


def _finish_dropping(stays: Q) -> None:
    """Drop the detached tables, after moving rows that match ``stays`` to the rest."""
    for name in _left(_LEAVING):
        _briefly(partial(_finish, name=name, stays=stays), _SHARED)


def _left(ending: str) -> list[str]:
    """Names of tables that `extend` or `drop` has made or detached, and not ended with."""
    with connections[alias()].cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition "
            "AND relname LIKE %s AND relnamespace = (SELECT relnamespace FROM pg_class "
            "WHERE oid = to_regclass(%s)) ORDER BY relname",
            [f"{TABLE}%{ending}", TABLE],
        )
        names = [name for (name,) in cursor.fetchall()]
    return [name for name in names if _NAME.fullmatch(name.removesuffix(ending))]


def _detach(cursor: Any, partition: Partition) -> None:
    if partition not in _read(cursor).partitions:
        return
    name = f"{partition.name}{_LEAVING}"
    cursor.execute(f'ALTER TABLE {TABLE} DETACH PARTITION "{partition.name}"')
    cursor.execute(f'ALTER TABLE "{partition.name}" RENAME TO "{name}"')
    _copy(cursor, f'"{name}"', TABLE, f"state IN ({_OPEN})")


def _finish(cursor: Any, name: str, stays: Q) -> None:
    cursor.execute("SELECT to_regclass(%s)", [f'"{name}"'])
    if cursor.fetchone() == (None,):
        return  # another process was quicker
    cursor.execute(f'SELECT min(id), max(id) FROM "{name}"')
    lowest, highest = cursor.fetchone()
    query = results().filter(stays).query
    where, values = query.get_compiler(alias()).compile(query.where)
    # Under the name by which the condition calls its columns.
    _copy(cursor, f'"{name}" AS "{TABLE}"', TABLE, where, values)
    cursor.execute(f'DROP TABLE "{name}"')
    # Of the calls that are gone. Without the usual order, for which it would join the results.
    attempts = (
        TaskAttempt.objects.using(alias())
        .order_by()
        .filter(
            ~Exists(results().filter(pk=OuterRef("result_id"))),
            result_id__gte=lowest or "",
            result_id__lte=highest or "",
        )
    )
    attempts._raw_delete(alias())


def _copy(
    cursor: Any, source: str, target: str, where: str = "true", values: Sequence[Any] = ()
) -> None:
    """Copy rows from one table to another, but none that is there."""
    cursor.execute(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        [TABLE],
    )
    (columns,) = cursor.fetchone()
    cursor.execute(
        f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {source} WHERE {where} "
        "ON CONFLICT (id) DO NOTHING",
        values or None,
    )


# ------------------------------------------------------------------ locks

_FOR_ITSELF = "ACCESS EXCLUSIVE MODE"
#: Keeps other processes that change partitions away, and nobody else.
_SHARED = f"LOCK TABLE ONLY {TABLE} IN SHARE UPDATE EXCLUSIVE MODE"
_REST_ALONE = f"LOCK TABLE ONLY {REST} IN {_FOR_ITSELF}"
_EXCLUSIVE = f"LOCK TABLE {TABLE} IN {_FOR_ITSELF}"

_OPEN = ", ".join(f"'{state}'" for state in sorted(set(State) - TERMINAL))


def _briefly(work: Callable[[Any], _T], *locks: str) -> _T:
    """Do this in a transaction with these locks. Raises `OperationalError` if somebody else always
    has one of them."""
    for left in range(_TRIES - 1, -1, -1):
        try:
            with transaction.atomic(using=alias()), connections[alias()].cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                for lock in locks:
                    cursor.execute(lock)
                return work(cursor)
        except OperationalError as error:
            if sqlstate(error) != _NOT_AVAILABLE or not left:
                raise
        time.sleep(_PAUSE)
    raise AssertionError("unreachable")


#: SQLSTATE: a lock was waited for in vain.
_NOT_AVAILABLE = "55P03"
