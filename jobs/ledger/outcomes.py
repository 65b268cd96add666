"""Write outcomes into rows, in bulk, and each end once.

A terminal state is never overwritten. The WHERE of the upsert sees to that in the database, so of
two workers that both believe they hold a message only one records its end.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, Q, QuerySet

from jobs.conf.values import LONGEST_LABEL
from jobs.message import (
    LONGEST,
    is_name,
)
from jobs.message.workflow import Counted
from jobs.models import TaskAttempt, TaskGroup, TaskResult
from jobs.models.groups import TaskGroupQuerySet
from jobs.models.moments import keeps_utc, stored, stored_in_sqlite
from jobs.models.results import TaskResultQuerySet
from jobs.serialization import dumps
from jobs.states import TERMINAL, State
from jobs.timing import clock

_M = TypeVar("_M", bound=Model)
_T = TypeVar("_T")


class Record(NamedTuple):
    """The row that an outcome becomes. Fields are its columns, in their order."""

    id: str
    task: str
    queue: str
    state: str
    args: str
    kwargs: str
    result: str | None
    error_type: str
    error: str
    traceback: str
    attempts: int
    worker: str
    created_at: dt.datetime
    eta: dt.datetime | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    published_at: dt.datetime
    message: bytes
    group_id: str | None = None
    group_index: int | None = None
    parent_id: str | None = None
    root_id: str | None = None
    label: str = ""


class Pending(NamedTuple):
    """The row of a call that waits for its publication. Fields are `TaskResult`'s; all others have
    their defaults."""

    id: str
    task: str
    queue: str
    args: str
    kwargs: str
    created_at: dt.datetime
    eta: dt.datetime | None
    message: bytes
    group_id: str | None
    group_index: int | None
    parent_id: str | None
    root_id: str | None
    label: str


class Attempt(NamedTuple):
    """An attempt that failed and was followed by another. Fields are `TaskAttempt`'s."""

    result_id: str
    number: int
    worker: str
    started_at: dt.datetime | None
    finished_at: dt.datetime
    error_type: str
    error: str
    traceback: str
    #: When the attempt after it is due.
    retry_at: dt.datetime | None = None
    #: When it was due itself, if it is the first; None: at once.
    eta: dt.datetime | None = None


#: The largest number that a column holds.
_MOST = 2**31 - 1

#: Columns that stay as they are when the row exists already.
_KEPT = (
    *("id", "task", "queue", "args", "kwargs", "created_at", "published_at"),
    *("group_id", "group_index", "parent_id", "root_id", "label"),
)


def alias() -> str:
    """The database that holds the ledger."""
    return router.db_for_write(TaskResult)


def results() -> TaskResultQuerySet:
    """All rows of results, where they are written."""
    return TaskResult.objects.using(alias())


def groups() -> TaskGroupQuerySet:
    """All counters of chords, where they are written."""
    return TaskGroup.objects.using(alias())


def chunks(items: Sequence[_T], size: int = 500) -> Iterator[Sequence[_T]]:
    """Parts of which each fits into one statement on every database."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def lock_rows(rows: QuerySet[_M]) -> QuerySet[_M]:
    """Lock these rows until the transaction ends, and skip those that another transaction holds.
    Does as much of that as the database can; SQLite's transactions have one writer anyway."""
    features = connections[rows.db].features
    return rows.select_for_update(
        skip_locked=features.has_select_for_update_skip_locked,
        of=("self",) if features.has_select_for_update_of else (),
    )


def insert(rows: Sequence[Pending], connection: BaseDatabaseWrapper) -> None:
    """Write the rows of calls that wait for their publication, in this connection's transaction.

    Raises `IntegrityError` when one of these calls has a row; the transaction can only be rolled
    back then.
    """
    # From Django 6.1 on, `bulk_create` marks the transaction only if it writes more than one batch.
    with transaction.mark_for_rollback_on_error(connection.alias):
        if len(rows) == 1 and connection.vendor in _WRITERS:
            # Each transaction with a call does this: the ORM takes ten times as much of this
            # process's time for one row.
            (row,) = rows
            created, eta = stored(row.created_at, connection), stored(row.eta, connection)
            with connection.cursor() as cursor:
                cursor.execute(_INSERT, row._replace(created_at=created, eta=eta))
        else:
            TaskResult.objects.using(connection.alias).bulk_create(
                [TaskResult(**row._asdict()) for row in rows], batch_size=500
            )


def record(records: Sequence[Record]) -> int:
    """Write the outcomes, all or none, and return how many rows were written. An outcome of a call
    that has ended changes nothing.

    Runs in the caller's transaction if there is one.
    """
    return _write(records, None) if records else 0


def record_start(item: Record) -> None:
    """Write that a call runs, unless a later attempt or its end is recorded."""
    began = {name: getattr(item, name) for name in ("state", "worker", "attempts", "started_at")}
    # An attempt that was recorded is over: its message was only delivered once more.
    before = Q(attempts__lt=item.attempts) | Q(attempts=item.attempts, state=State.STARTED)
    cleared = {"error_type": "", "error": "", "traceback": "", "result": None}
    if not _open([item.id]).filter(before).update(**began, **cleared):
        TaskResult.objects.using(alias()).bulk_create(
            [TaskResult(**item._asdict())], ignore_conflicts=True
        )


def record_ends(records: Sequence[Record]) -> set[str]:
    """`record`, at some more cost: returns the ids of the calls that have ended by it, and not
    before."""
    written: set[str] = set()
    if records:
        _write(records, written)
    return {item.id for item in records if item.id in written and item.state in TERMINAL}


def _write(records: Sequence[Record], written: set[str] | None) -> int:
    """Adds the ids of the rows that were written to ``written``, if it is given."""
    # One statement can't touch a row twice: the first terminal outcome wins, else the last.
    unique: dict[str, Record] = {}
    for item in records:
        if unique.get(item.id) is None or unique[item.id].state not in TERMINAL:
            unique[item.id] = item
    connection = connections[alias()]
    write = _WRITERS.get(connection.vendor, _write_by_orm)
    return write(connection, list(unique.values()), written)


def bounded(item: Record) -> Record:
    """Make a record fit its columns: cut its texts, and leave out names of other calls that can't
    be stored."""
    index = item.group_index
    return item._replace(
        task=plain(item.task)[:LONGEST],
        queue=plain(item.queue)[:LONGEST],
        args=plain(item.args),
        kwargs=plain(item.kwargs),
        result=None if item.result is None else plain(item.result),
        error_type=plain(item.error_type)[:LONGEST],
        error=plain(item.error),
        traceback=plain(item.traceback),
        attempts=min(max(item.attempts, 0), _MOST),
        worker=plain(item.worker)[:LONGEST],
        group_id=_name(item.group_id),
        group_index=index if index is not None and 0 <= index <= _MOST else None,
        parent_id=_name(item.parent_id),
        root_id=_name(item.root_id),
        label=plain(item.label)[:LONGEST_LABEL],
    )


def _name(value: str | None) -> str | None:
    return value if is_name(value) else None


def plain(text: str) -> str:
    """Remove what PostgreSQL can't store in a text."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def record_attempts(attempts: Sequence[Attempt]) -> None:
    """Keep failed attempts. One that was kept by a worker that died before its acknowledgement
    stays as it is."""
    TaskAttempt.objects.using(alias()).bulk_create(
        [TaskAttempt(**attempt._asdict()) for attempt in attempts], ignore_conflicts=True
    )


def open_chords(chords: Sequence[Counted]) -> None:
    """Begin to count the members of these chords. A counter that exists stays as it is."""
    groups().bulk_create(
        [
            TaskGroup(id=one.id, size=one.size, remaining=one.size, body=dumps(one.body))
            for one in chords
        ],
        batch_size=500,
        ignore_conflicts=True,
    )


def ended(ids: Sequence[str]) -> set[str]:
    """Return those of these calls whose end is recorded.

    Each claim of a backlog asks this about all its calls: so they are one parameter, where the
    database can take a list.
    """
    connection = connections[alias()]
    question = _ENDED.get(connection.vendor)
    if question is None:
        return results().ended(ids)
    values = [_json(ids)]
    if ids and connection.vendor == "postgresql" and all(map(_is_uuid, ids)):
        # Of a ledger in partitions, only those between are asked. Texts of this form alone have
        # the same order here as in the database, whatever its collation.
        question += " AND id BETWEEN %s AND %s"
        values += [min(ids), max(ids)]
    with connection.cursor() as cursor:
        cursor.execute(question, values)
        return {task_id for (task_id,) in cursor.fetchall()}


_is_uuid = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


#: What an end consists of. All of them are texts, which no database needs to convert.
_END = ("id", "state", "result", "error_type", "error", "traceback", "parent_id", "root_id")


def ends(ids: Sequence[str]) -> list[TaskResult]:
    """The rows of those of these calls that have ended, with the columns of an end (`_END`).

    Whoever waits for a call asks this at least twice. The ORM takes four times as much of this
    process's time for one row.
    """
    found = []
    connection = connections[alias()]
    for part in chunks(ids):
        if connection.vendor not in _WRITERS:
            rows = results().filter(id__in=part, state__in=TERMINAL)
            found += list(rows.only(*_END))
            continue
        with connection.cursor() as cursor:
            cursor.execute(_ended(f"IN ({', '.join(['%s'] * len(part))})", ", ".join(_END)), part)
            found += [TaskResult.from_db(connection.alias, _END, row) for row in cursor.fetchall()]
    return found


def reasons(ids: Sequence[str], error_types: Collection[str]) -> dict[str, str]:
    """Of these calls, those that failed with one of these errors: id → the error as a text."""
    failed = results().filter(id__in=ids, state=State.FAILURE, error_type__in=error_types)
    found = failed.values_list("id", "error_type", "error")
    return {task_id: f"{kind.rpartition('.')[2]}: {error}" for task_id, kind, error in found}


def messages(ids: Sequence[str]) -> dict[str, bytes]:
    """Of these calls, those that have not ended and have a message: id → that message."""
    rows = _open([task_id for task_id in ids if is_name(task_id)]).exclude(message=b"")
    return {task_id: bytes(raw) for task_id, raw in rows.values_list("id", "message")}


def standing(records: Sequence[Record]) -> set[str]:
    """The outcomes the ledger actually holds (ids): no other worker recorded a different one
    first."""
    said = {item.id: (item.state, item.worker) for item in records}
    found = results().filter(id__in=said).values_list("id", "state", "worker")
    return {task_id for task_id, *ended in found if said.get(task_id) == tuple(ended)}


def not_sent(ids: Sequence[str]) -> set[str]:
    """Return those of these calls that have no message yet.

    Deletes rows that only keep a place for a call, since what it follows is run again.
    """
    new = set(ids)
    for part in chunks(ids):
        # Each step of a chain asks this: the ORM takes five times as much of this process's time.
        with connections[alias()].cursor() as cursor:
            cursor.execute(f"{_MESSAGE_OF} ({', '.join(['%s'] * len(part))})", part)
            found = cursor.fetchall()
        places = {task_id for task_id, state, raw in found if state == State.PENDING and not raw}
        if places:
            results().filter(id__in=places).delete()
        new -= {task_id for task_id, *_ in found if task_id not in places}
    return new


def roots(ids: Sequence[str], *, ended: bool) -> dict[str, str]:
    """Of these calls, those that have ended, or that have not: id → the first call of its
    workflow."""
    found: dict[str, str] = {}
    for part in chunks(ids):
        rows = results().filter(id__in=part, state__in=TERMINAL) if ended else _open(part)
        found |= {task_id: root or task_id for task_id, root in rows.values_list("id", "root_id")}
    return found


def replace_ended(ids: Sequence[str], groups_of: Sequence[str]) -> None:
    """Delete the rows of these calls, which have ended, and the counters of these chords, which
    have failed: they are sent again in another workflow."""
    for part in chunks(ids):
        results().filter(id__in=part, state__in=TERMINAL).delete()
    groups().filter(id__in=groups_of, remaining__lte=0).delete()


def forget(ids: Sequence[str]) -> None:
    """Mark calls that ran but asked not to be recorded, so that relay and recovery skip them."""
    _open(ids).update(message=b"", published_at=clock.now())


def mark_revoked(ids: Sequence[str], why: str) -> None:
    """End calls that will never run as REVOKED, if they have not ended."""
    _open(ids).update(state=State.REVOKED, error=why, finished_at=clock.now())


def moved(ids: Sequence[str], queue: str) -> None:
    """Note that the messages of these calls wait on another queue now."""
    _open(ids).update(queue=queue)


def hastened(ids: Sequence[str]) -> None:
    """Note that these calls, which were due later, are due now."""
    now = clock.now()
    _open(ids).filter(eta__gt=now).update(eta=now)


def rewritten(task_id: str, message: bytes) -> None:
    """Note that the message of this call is another one now."""
    _open([task_id]).exclude(message=b"").update(message=message)


def _open(ids: Sequence[str]) -> TaskResultQuerySet:
    """The rows of those of these calls that have not ended."""
    return results().filter(id__in=ids).exclude(state__in=TERMINAL)


def _upsert(source: str) -> str:
    table = TaskResult._meta.db_table
    columns = ", ".join(Record._fields)
    changes = ", ".join(f"{c} = excluded.{c}" for c in Record._fields if c not in _KEPT)
    ends = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
    return (
        f"INSERT INTO {table} ({columns}) {source} "
        f"ON CONFLICT (id) DO UPDATE SET {changes} WHERE {table}.state NOT IN ({ends}) "
        # False for a worker that lost the message, when others have gone on with it since. While
        # the row is PENDING nobody has: it may have attempts from before it was run again.
        f"AND ({table}.state = '{State.PENDING}' OR {table}.attempts <= excluded.attempts)"
    )


def _ended(ids: str, columns: str = "id") -> str:
    ends = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
    table = TaskResult._meta.db_table
    return f"SELECT {columns} FROM {table} WHERE id {ids} AND state IN ({ends})"  # noqa: S608  no values


_MESSAGE_OF = f"SELECT id, state, message FROM {TaskResult._meta.db_table} WHERE id IN"  # noqa: S608  no values


def _by_column(records: Sequence[Record]) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """The records by columns: those in which all have one value, with that value, and the others,
    with all values.

    Most columns of a batch have one value. The database then reads it once, and not per row.
    """
    shared: dict[str, Any] = {}
    rest: dict[str, Sequence[Any]] = {}
    for name, values in zip(Record._fields, zip(*records, strict=True), strict=True):
        if name != "id" and values.count(values[0]) == len(values):
            shared[name] = values[0]
        else:
            rest[name] = values
    return shared, rest


def _write_postgresql(
    connection: BaseDatabaseWrapper, records: Sequence[Record], written: set[str] | None
) -> int:
    """Each column that differs is one JSON text. A parameter per value, or an array per column,
    costs this process several times as much. For large rows it is the other way round."""
    with connection.cursor() as cursor:
        if written is None and sum(map(_length, records)) > _LARGE * len(records):
            with transaction.atomic(using=connection.alias):
                cursor.executemany(_POSTGRESQL_EACH, records)
            return int(cursor.rowcount)
        shared, rest = _by_column(records)
        if "eta" in rest:
            rest["eta"] = [_exact(moment) for moment in rest["eta"]]
        values = ", ".join(_FROM_TEXT[n] if n in rest else f"%s::{_TYPES[n]}" for n in _TYPES)
        columns = ", ".join(["json_array_elements_text(%s::json)"] * len(rest))
        sql = _upsert(f"SELECT {values} FROM ROWS FROM ({columns}) AS given({', '.join(rest)})")  # noqa: S608  names of columns alone
        given = [*shared.values(), *map(_json, rest.values())]
        if written is None:
            cursor.execute(sql, given)
        else:
            cursor.execute(f"{sql} RETURNING id", given)
            written.update(task_id for (task_id,) in cursor.fetchall())
        return int(cursor.rowcount)


def _length(item: Record) -> int:
    """About how many bytes a record has, if they are many."""
    return len(item.args) + len(item.result or "") + len(item.traceback) + len(item.message)


def _exact(moment: dt.datetime | None) -> dt.datetime | str | None:
    """A sender chose the zone. If its offset has seconds, the encoder would cut them off."""
    return moment if moment is None or moment.tzinfo is dt.UTC else moment.isoformat()


def _plain_text(value: Any) -> str:
    """Subclasses of `str`, which the encoder refuses; whatever else it refuses raises."""
    return str.__str__(value)


_encode = msgspec.json.Encoder(enc_hook=_plain_text).encode


def _json(values: Sequence[Any]) -> str:
    """A JSON list; bytes as base64. Raises `UnicodeEncodeError` for lone surrogates."""
    return _encode(values).decode()


def _write_sqlite(
    connection: BaseDatabaseWrapper, records: Sequence[Record], written: set[str] | None
) -> int:
    """Rows without bytes go as one JSON text. A statement for each row takes three times as long,
    and keeps the threads that run tasks from running."""
    together = [item for item in records if not item.message]
    # All of this before the transaction, which keeps others from writing.
    given = _sqlite_json(together, connection) if together else None
    one_by_one = [item for item in records if item.message] if given else records
    rows: list[list[Any]] = [list(item) for item in one_by_one]
    for row in rows:
        for place in _MOMENTS:
            row[place] = stored_in_sqlite(row[place], connection)
    count = 0
    # A single statement needs no transaction, in which others would wait between its three steps
    # until this thread has its turn.
    whole = transaction.atomic(using=connection.alias) if rows else contextlib.nullcontext()
    with whole, connection.cursor() as cursor:
        if given:
            sql, values = given
            cursor.execute(sql if written is None else f"{sql} RETURNING id", values)
            if written is None:
                count = int(cursor.rowcount)
            else:
                written.update(task_id for (task_id,) in cursor.fetchall())
        if rows and written is None:
            cursor.executemany(_SQLITE, rows)
            count += int(cursor.rowcount)
        elif written is not None:
            for row in rows:
                cursor.execute(_SQLITE, row)
                if cursor.rowcount:
                    written.add(row[0])
    return count if written is None else len(written)


def _sqlite_json(
    records: Sequence[Record], connection: BaseDatabaseWrapper
) -> tuple[str, list[Any]] | None:
    """The statement that writes all these records, and its parameters. None: this SQLite can't, or
    a text has the character NUL, where its JSON ends."""
    if sqlite3.sqlite_version_info < _SQLITE_JSON:
        return None
    shared, rest = _by_column(records)
    for name in _MOMENT_NAMES:
        if name in rest:
            rest[name] = _sqlite_moments(rest[name], connection)
        else:
            shared[name] = stored_in_sqlite(shared[name], connection)
    rows = _json(list(zip(*rest.values(), strict=True)))
    if "\\u0000" in rows:
        return None
    places = {name: f"json_extract(value, '$[{place}]')" for place, name in enumerate(rest)}
    values = ", ".join(places.get(name, "%s") for name in Record._fields)
    # "WHERE true" tells SQLite that ON is not the condition of a join.
    sql = _upsert(f"SELECT {values} FROM json_each(%s) WHERE true")  # noqa: S608  as above
    return sql, [*shared.values(), rows]


def _sqlite_moments(
    moments: Sequence[dt.datetime | None], connection: BaseDatabaseWrapper
) -> list[Any]:
    """`stored_in_sqlite` of each. The encoder writes a moment in a thirtieth of the time of `str`:
    2026-11-28T07:31:05.123456Z."""
    if not keeps_utc(connection) or {m.tzinfo for m in moments if m is not None} != {dt.UTC}:
        return [stored_in_sqlite(moment, connection) for moment in moments]
    text = _encode(moments).replace(b"T", b" ").replace(b"Z", b"")
    return msgspec.json.decode(text, type=list[Any])


def _write_by_orm(
    connection: BaseDatabaseWrapper, records: Sequence[Record], written: set[str] | None
) -> int:
    """For databases whose upsert can't have a condition (MySQL, MariaDB, Oracle)."""
    rows = TaskResult.objects.using(connection.alias)
    written = set() if written is None else written
    with transaction.atomic(using=connection.alias):
        by_id = {item.id: item for item in records}
        # Some databases find ids that differ by case, until the migration that says otherwise.
        locked = rows.select_for_update().filter(id__in=by_id)
        known = by_id.keys() & set(locked.values_list("id", flat=True))
        new = [TaskResult(**item._asdict()) for item in records if item.id not in known]
        rows.bulk_create(new, ignore_conflicts=True)
        # Not those that another worker has inserted at the same moment.
        there = rows.filter(id__in=[row.id for row in new])
        for task_id, *end in there.values_list("id", "state", "worker", "finished_at"):
            own = by_id.get(task_id)
            if own and end == [own.state, own.worker, own.finished_at]:
                written.add(task_id)
        for task_id in known:
            values: dict[str, Any] = by_id[task_id]._asdict()
            changes = {name: value for name, value in values.items() if name not in _KEPT}
            newer = Q(state=State.PENDING) | Q(attempts__lte=values["attempts"])
            open_rows = _open([task_id]).filter(newer)
            if open_rows.update(**changes):
                written.add(task_id)
    return len(written)


_KINDS = {
    "BinaryField": "bytea",
    "DateTimeField": "timestamptz",
    "PositiveIntegerField": "integer",
}
#: Column → its type in PostgreSQL.
_TYPES = {
    name: _KINDS.get(TaskResult._meta.get_field(name).get_internal_type(), "text")
    for name in Record._fields
}
_MOMENT_NAMES = [name for name, kind in _TYPES.items() if kind == "timestamptz"]
_MOMENTS = [Record._fields.index(name) for name in _MOMENT_NAMES]
#: Average bytes from which on rows are large.
_LARGE = 4096
#: Column → its value from a text of the same name, in PostgreSQL.
_FROM_TEXT = {
    name: f"decode({name}, 'base64')" if kind == "bytea" else f"{name}::{kind}"
    for name, kind in _TYPES.items()
}
_INSERT = (
    f"INSERT INTO {TaskResult._meta.db_table} ({', '.join(Pending._fields)}, "  # noqa: S608  as above
    "state, error_type, error, traceback, attempts, worker) "
    f"VALUES ({', '.join(['%s'] * len(Pending._fields))}, '{State.PENDING}', '', '', '', 0, '')"
)
_POSTGRESQL_EACH = _upsert(f"VALUES ({', '.join(f'%s::{kind}' for kind in _TYPES.values())})")
_SQLITE = _upsert(f"VALUES ({', '.join(['%s'] * len(Record._fields))})")
#: Since this version, SQLite has functions for JSON in every build.
_SQLITE_JSON = (3, 38)
#: Takes ids as a JSON text. An array, so that PostgreSQL uses the index, whatever it knows of the
#: table.
_ENDED = {"postgresql": _ended("= ANY(ARRAY(SELECT json_array_elements_text(%s::json)))")}
if sqlite3.sqlite_version_info >= _SQLITE_JSON:
    _ENDED["sqlite"] = _ended("IN (SELECT value FROM json_each(%s))")
_WRITERS: dict[str, Callable[[BaseDatabaseWrapper, Sequence[Record], set[str] | None], int]] = {
    "postgresql": _write_postgresql,
    "sqlite": _write_sqlite,
}
