"""Outcomes into rows, in bulk and once.

A row's terminal state is never overwritten: the database itself sees to it, in the WHERE of the
upsert, so that two workers which both believe to hold a message can't both be right.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.message import (
    LONGEST,
    is_name,
)
from jobs.message.workflow import Counted
from jobs.models import TaskAttempt, TaskGroup, TaskResult
from jobs.models.moments import stored
from jobs.models.results import TaskResultQuerySet
from jobs.serialization import dumps
from jobs.states import TERMINAL, State
from jobs.timing import clock


class Record(NamedTuple):
    """What the ledger is told of one delivery. Fields are the row's columns, in their order."""

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

    @property
    def ended(self) -> tuple[str, str, dt.datetime | None]:
        """By whom, how and when."""
        return self.state, self.worker, self.finished_at


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


#: The largest number that a column holds.
_MOST = 2**31 - 1

#: Rows that one query asks for by their ids.
_BATCH = 500

#: Columns that stay as they are when the row exists already.
_KEPT = (
    *("id", "task", "queue", "args", "kwargs", "created_at", "published_at"),
    *("group_id", "group_index", "parent_id", "root_id"),
)


def alias() -> str:
    """The database that holds the ledger."""
    return router.db_for_write(TaskResult)


def record(records: Sequence[Record]) -> int:
    """Write the outcomes, in one statement; those of ended tasks change nothing.

    Runs in the caller's transaction if there is one. How many rows were written.
    """
    if not records:
        return 0
    connection = connections[alias()]
    if connection.vendor in _WRITERS:
        return _WRITERS[connection.vendor](connection, _unique(records))
    return len(_write_by_orm(connection, _unique(records)))


def record_ends(records: Sequence[Record]) -> set[str]:
    """`record`, at some more cost; the ids of those calls that have ended by it, and not before."""
    if not records:
        return set()
    connection, unique = connections[alias()], _unique(records)
    written = _TELLERS.get(connection.vendor, _write_by_orm)(connection, unique)
    return {item.id for item in unique if item.id in written and item.state in TERMINAL}


def _unique(records: Sequence[Record]) -> list[Record]:
    """One statement can't touch a row twice; the first terminal outcome wins, else the last."""
    unique: dict[str, Record] = {}
    for item in records:
        if unique.get(item.id) is None or unique[item.id].state not in TERMINAL:
            unique[item.id] = item
    return list(unique.values())


def bounded(item: Record) -> Record:
    """The same, as far as its columns can hold it: texts are cut, and names of other calls that a
    row can't have are left out."""
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
    )


def _name(value: str | None) -> str | None:
    return value if is_name(value) else None


def plain(text: str) -> str:
    """Without what PostgreSQL can't store in a text."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def record_attempts(attempts: Sequence[Attempt]) -> None:
    """Keep failed attempts; one that is kept already, since its worker died before it could say
    that it was done, stays as it is."""
    TaskAttempt.objects.using(alias()).bulk_create(
        [TaskAttempt(**attempt._asdict()) for attempt in attempts], ignore_conflicts=True
    )


def open_chords(chords: Sequence[Counted]) -> None:
    """Begin to count the members of these chords; one that is counted already stays as it is."""
    TaskGroup.objects.using(alias()).bulk_create(
        [
            TaskGroup(id=one.id, size=one.size, remaining=one.size, body=dumps(one.body))
            for one in chords
        ],
        batch_size=_BATCH,
        ignore_conflicts=True,
    )


def ended(ids: Sequence[str]) -> set[str]:
    """Those of these tasks whose end is recorded."""
    return TaskResult.objects.using(alias()).ended(ids)


def reasons(ids: Sequence[str], error_types: Collection[str]) -> dict[str, str]:
    """Those of these calls that have failed by one of these errors: id → what it was."""
    rows = TaskResult.objects.using(alias()).filter(id__in=ids, state=State.FAILURE)
    found = rows.filter(error_type__in=error_types).values_list("id", "error_type", "error")
    return {task_id: f"{kind.rpartition('.')[2]}: {error}" for task_id, kind, error in found}


def messages(ids: Sequence[str]) -> dict[str, bytes]:
    """The messages that the rows of these calls hold, of those that have not ended."""
    rows = _open([task_id for task_id in ids if is_name(task_id)]).exclude(message=b"")
    return {task_id: bytes(raw) for task_id, raw in rows.values_list("id", "message")}


def standing(records: Sequence[Record]) -> set[str]:
    """Those of these outcomes that are what the ledger says: nobody was quicker with another."""
    said = {item.id: (item.state, item.worker) for item in records}
    rows = TaskResult.objects.using(alias()).filter(id__in=said)
    found = rows.values_list("id", "state", "worker")
    return {task_id for task_id, *ended in found if said.get(task_id) == tuple(ended)}


def not_sent(ids: Sequence[str]) -> set[str]:
    """Those of these calls that have no message yet. Rows that only keep their place, since the
    call was to follow one that an operator runs again, are taken away."""
    new = set(ids)
    for start in range(0, len(ids), _BATCH):
        rows = TaskResult.objects.using(alias()).filter(id__in=ids[start : start + _BATCH])
        found = rows.values_list("id", "state", "message")
        places = {task_id for task_id, state, raw in found if state == State.PENDING and not raw}
        if places:
            rows.filter(id__in=places).delete()
        new -= {task_id for task_id, *_ in found if task_id not in places}
    return new


def forget(ids: Sequence[str]) -> None:
    """These calls have had their run and want no end on record: nothing is to send them again."""
    rows = TaskResult.objects.using(alias()).filter(id__in=ids).exclude(state__in=TERMINAL)
    rows.update(message=b"", published_at=clock.now())


def give_up(task_id: str, why: str) -> None:
    """A call that has not ended never will be run: it ends as REVOKED."""
    give_up_all([task_id], why)


def give_up_all(ids: Sequence[str], why: str) -> None:
    """The same with several calls."""
    _open(ids).update(state=State.REVOKED, error=why, finished_at=clock.now())


def moved(ids: Sequence[str], queue: str) -> None:
    """The messages of these calls wait on another queue now."""
    _open(ids).update(queue=queue)


def rewritten(task_id: str, message: bytes) -> None:
    """The message of this call is another one now."""
    _open([task_id]).exclude(message=b"").update(message=message)


def _open(ids: Sequence[str]) -> TaskResultQuerySet:
    """Rows of those of these calls that have not ended."""
    return TaskResult.objects.using(alias()).filter(id__in=ids).exclude(state__in=TERMINAL)


def _upsert(source: str) -> str:
    table = TaskResult._meta.db_table
    columns = ", ".join(Record._fields)
    changes = ", ".join(f"{c} = excluded.{c}" for c in Record._fields if c not in _KEPT)
    ends = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
    return (
        f"INSERT INTO {table} ({columns}) {source} "
        f"ON CONFLICT (id) DO UPDATE SET {changes} WHERE {table}.state NOT IN ({ends}) "
        # A worker that lost the message, and others have gone on with it since.
        f"AND {table}.attempts <= excluded.attempts"
    )


def _write_postgresql(connection: BaseDatabaseWrapper, records: Sequence[Record]) -> int:
    """A parameter a column instead of one a value: parsing is what many rows cost. What large rows
    cost is to put them into arrays."""
    columns = [list(column) for column in zip(*records, strict=True)]
    with connection.cursor() as cursor:
        if len(records) > 1 and _are_large(columns):
            cursor.executemany(_POSTGRESQL_EACH, records)
        else:
            cursor.execute(_POSTGRESQL, columns)
        return int(cursor.rowcount)


def _are_large(columns: Sequence[Sequence[Any]]) -> bool:
    size = sum(sum(map(len, filter(None, columns[place]))) for place in _LONG)
    return size > _LARGE * len(columns[0])


def _write_sqlite(connection: BaseDatabaseWrapper, records: Sequence[Record]) -> int:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.executemany(_SQLITE, [_row(connection, item) for item in records])
        return int(cursor.rowcount)


def _row(connection: BaseDatabaseWrapper, item: Record) -> list[Any]:
    return [
        stored(value, connection) if isinstance(value, dt.datetime) else value for value in item
    ]


def _tell_postgresql(connection: BaseDatabaseWrapper, records: Sequence[Record]) -> set[str]:
    with connection.cursor() as cursor:
        columns = [list(column) for column in zip(*records, strict=True)]
        cursor.execute(f"{_POSTGRESQL} RETURNING id", columns)
        return {task_id for (task_id,) in cursor.fetchall()}


def _tell_sqlite(connection: BaseDatabaseWrapper, records: Sequence[Record]) -> set[str]:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        written = set()
        for item in records:
            cursor.execute(_SQLITE, _row(connection, item))
            if cursor.rowcount:
                written.add(item.id)
        return written


def _write_by_orm(connection: BaseDatabaseWrapper, records: Sequence[Record]) -> set[str]:
    """For databases whose upsert can't have a condition (MySQL, MariaDB, Oracle). The ids of those
    that were written."""
    rows = TaskResult.objects.using(connection.alias)
    written: set[str] = set()
    with transaction.atomic(using=connection.alias):
        by_id = {item.id: item for item in records}
        # Some databases find ids that differ by case, until the migration that says otherwise.
        locked = rows.select_for_update().filter(id__in=by_id)
        known = by_id.keys() & set(locked.values_list("id", flat=True))
        new = [TaskResult(**item._asdict()) for item in records if item.id not in known]
        rows.bulk_create(new, ignore_conflicts=True)
        # Not those that another worker has inserted at the same moment.
        there = rows.filter(id__in=[row.id for row in new])
        for task_id, *ended in there.values_list("id", "state", "worker", "finished_at"):
            if task_id in by_id and tuple(ended) == by_id[task_id].ended:
                written.add(task_id)
        for task_id in known:
            values: dict[str, Any] = by_id[task_id]._asdict()
            changes = {name: value for name, value in values.items() if name not in _KEPT}
            open_rows = rows.filter(id=task_id, attempts__lte=values["attempts"])
            if open_rows.exclude(state__in=TERMINAL).update(**changes):
                written.add(task_id)
    return written


_TYPES = {"attempts": "int", "group_index": "int", "message": "bytea"} | {
    name: "timestamptz" for name in Record._fields if name.endswith("_at") or name == "eta"
}
#: Columns that may be long, and average bytes of them from which a row is large.
_LONG = [Record._fields.index(name) for name in ("args", "result", "traceback", "message")]
_LARGE = 4096
_ARRAYS = ", ".join(f"%s::{_TYPES.get(name, 'text')}[]" for name in Record._fields)
_POSTGRESQL = _upsert(f"SELECT * FROM unnest({_ARRAYS})")  # noqa: S608  as above
_POSTGRESQL_EACH = _upsert(
    f"VALUES ({', '.join(f'%s::{_TYPES[n]}' if n in _TYPES else '%s' for n in Record._fields)})"
)
_SQLITE = _upsert(f"VALUES ({', '.join(['%s'] * len(Record._fields))})")
_WRITERS: dict[str, Callable[[BaseDatabaseWrapper, Sequence[Record]], int]] = {
    "postgresql": _write_postgresql,
    "sqlite": _write_sqlite,
}
_TELLERS: dict[str, Callable[[BaseDatabaseWrapper, Sequence[Record]], set[str]]] = {
    "postgresql": _tell_postgresql,
    "sqlite": _tell_sqlite,
}
