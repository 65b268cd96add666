"""Outcomes into rows, in bulk and once.

A row's terminal state is never overwritten: the database itself sees to it, in the WHERE of the
upsert, so that two workers which both believe to hold a message can't both be right.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from jobs.models import TaskAttempt, TaskResult
from jobs.models.results import TaskResultQuerySet
from jobs.states import TERMINAL, State


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


#: Columns that stay as they are when the row exists already.
_KEPT = ("id", "task", "queue", "args", "kwargs", "created_at", "published_at")


def alias() -> str:
    """The database that holds the ledger."""
    return router.db_for_write(TaskResult)


def record(records: Sequence[Record]) -> int:
    """Write the outcomes, in one statement; those of ended tasks change nothing.

    Runs in the caller's transaction if there is one. How many rows were written.
    """
    if not records:
        return 0
    # One statement can't touch a row twice; the first terminal outcome wins, else the last.
    unique: dict[str, Record] = {}
    for item in records:
        if unique.get(item.id) is None or unique[item.id].state not in TERMINAL:
            unique[item.id] = item
    connection = connections[alias()]
    return _WRITERS.get(connection.vendor, _write_by_orm)(connection, list(unique.values()))


def record_attempts(attempts: Sequence[Attempt]) -> None:
    """Keep failed attempts; one that is kept already, since its worker died before it could say
    that it was done, stays as it is."""
    TaskAttempt.objects.using(alias()).bulk_create(
        [TaskAttempt(**attempt._asdict()) for attempt in attempts], ignore_conflicts=True
    )


def ended(ids: Sequence[str]) -> set[str]:
    """Those of these tasks whose end is recorded."""
    return TaskResult.objects.using(alias()).ended(ids)


def standing(records: Sequence[Record]) -> set[str]:
    """Those of these outcomes that are what the ledger says: nobody was quicker with another."""
    said = {item.id: (item.state, item.worker) for item in records}
    rows = TaskResult.objects.using(alias()).filter(id__in=said)
    found = rows.values_list("id", "state", "worker")
    return {task_id for task_id, *ended in found if said[task_id] == tuple(ended)}


def not_sent(ids: Sequence[str]) -> set[str]:
    """Those of these calls that have no message yet. Rows that only keep their place, since the
    call was to follow one that an operator runs again, are taken away."""
    rows = TaskResult.objects.using(alias()).filter(id__in=ids)
    found = rows.values_list("id", "state", "message")
    places = [task_id for task_id, state, raw in found if state == State.PENDING and not raw]
    rows.filter(id__in=places).delete()
    return set(ids) - {task_id for task_id, *_ in found} | set(places)


def forget(ids: Sequence[str]) -> None:
    """These calls have had their run and want no end on record: nothing is to send them again."""
    rows = TaskResult.objects.using(alias()).filter(id__in=ids).exclude(state__in=TERMINAL)
    rows.update(message=b"", published_at=timezone.now())


def give_up(task_id: str, why: str) -> None:
    """A call that has not ended never will be run: it ends as REVOKED."""
    give_up_all([task_id], why)


def give_up_all(ids: Sequence[str], why: str) -> None:
    """The same with several calls."""
    _open(ids).update(state=State.REVOKED, error=why, finished_at=timezone.now())


def moved(ids: Sequence[str], queue: str) -> None:
    """The messages of these calls wait on another queue now."""
    _open(ids).update(queue=queue)


def rewritten(task_id: str, message: bytes) -> None:
    """The message of this call is another one now."""
    _open([task_id]).exclude(message=b"").update(message=message)


def _open(ids: Sequence[str]) -> TaskResultQuerySet:
    """Rows of those of these calls that have not ended."""
    return TaskResult.objects.using(alias()).filter(id__in=ids).exclude(state__in=TERMINAL)


def reopen(task_id: str, message: bytes | None = None) -> None:
    """An operator sends an ended task again: its row waits for a new outcome, and what is known of
    former attempts makes room for those to come. ``message``: its new one."""
    rows = TaskResult.objects.using(alias())
    changes = {} if message is None else {"message": message}
    with transaction.atomic(using=alias()):
        reopened = rows.filter(id=task_id, state__in=TERMINAL).update(
            state=State.PENDING,
            result=None,
            error_type="",
            error="",
            traceback="",
            attempts=0,
            eta=None,
            started_at=None,
            finished_at=None,
            published_at=timezone.now(),
            **changes,
        )
        if reopened:
            TaskAttempt.objects.using(alias()).filter(result_id=task_id).delete()


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
    """A parameter a column instead of one a value: parsing is what many rows cost."""
    with connection.cursor() as cursor:
        cursor.execute(_POSTGRESQL, [list(column) for column in zip(*records, strict=True)])
        return int(cursor.rowcount)


def _write_sqlite(connection: BaseDatabaseWrapper, records: Sequence[Record]) -> int:
    adapt = connection.ops.adapt_datetimefield_value
    rows = [
        [adapt(value) if isinstance(value, dt.datetime) else value for value in item]
        for item in records
    ]
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.executemany(_SQLITE, rows)
        return int(cursor.rowcount)


def _write_by_orm(connection: BaseDatabaseWrapper, records: Sequence[Record]) -> int:
    """For databases whose upsert can't have a condition (MySQL, MariaDB, Oracle)."""
    rows = TaskResult.objects.using(connection.alias)
    with transaction.atomic(using=connection.alias):
        by_id = {item.id: item for item in records}
        known = set(rows.select_for_update().filter(id__in=by_id).values_list("id", flat=True))
        new = [TaskResult(**item._asdict()) for item in records if item.id not in known]
        rows.bulk_create(new, ignore_conflicts=True)
        written = len(new)
        for task_id in known:
            values: dict[str, Any] = by_id[task_id]._asdict()
            changes = {name: value for name, value in values.items() if name not in _KEPT}
            open_rows = rows.filter(id=task_id, attempts__lte=values["attempts"])
            written += open_rows.exclude(state__in=TERMINAL).update(**changes)
    return written


_TYPES = {"attempts": "int", "message": "bytea"} | {
    name: "timestamptz" for name in Record._fields if name.endswith("_at") or name == "eta"
}
_ARRAYS = ", ".join(f"%s::{_TYPES.get(name, 'text')}[]" for name in Record._fields)
_POSTGRESQL = _upsert(f"SELECT * FROM unnest({_ARRAYS})")  # noqa: S608  as above
_SQLITE = _upsert(f"VALUES ({', '.join(['%s'] * len(Record._fields))})")
_WRITERS: dict[str, Callable[[BaseDatabaseWrapper, Sequence[Record]], int]] = {
    "postgresql": _write_postgresql,
    "sqlite": _write_sqlite,
}
