"""Deleting what is older than it has to be kept: results, and the history of schedules.

Rows go in small transactions, those that nobody else holds, so that pruning may run at any time, in
several processes, and be stopped anywhere.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from django.db import connections, router, transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet

from jobs import (
    conf,
    ledger,
    registry,
)
from jobs.models import ScheduleRun, TaskAttempt, TaskGroup, TaskResult
from jobs.states import TERMINAL

#: Rows of one transaction.
_BATCH = 500
#: Runs of each schedule that stay, however old: what the admin shows of it.
KEPT_RUNS = 20
#: Clocks of senders may be ahead of this machine's.
_AHEAD = dt.timedelta(days=1)


class Part(NamedTuple):
    """Some rows that may go."""

    #: An end, ``task <name>`` or ``schedule runs``.
    what: str
    rows: QuerySet[Any]


def prune(
    now: dt.datetime,
    *,
    seconds: float | None = None,
    done: Callable[[str, int], object] = lambda what, count: None,
) -> bool:
    """Delete what is too old; whether all of it is gone.

    ``seconds``: begin no batch after so many. ``done``: called after each batch, with the name of
    its part and the number of its rows.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    for part in parts(now):
        for count in _delete(part.rows):
            done(part.what, count)
            if ends is not None and time.monotonic() >= ends:
                return False
    return True


def count(now: dt.datetime) -> dict[str, int]:
    """How many rows of each part `prune` would delete."""
    found: dict[str, int] = {}
    for part in parts(now):
        found[part.what] = found.get(part.what, 0) + part.rows.count()
    return {what: number for what, number in found.items() if number}


def parts(now: dt.datetime) -> Iterator[Part]:
    """What may go, in the order of the index that finds it."""
    own = {
        name: conf.seconds_or_none(task.options.result_expires)
        for name, task in registry.tasks.items()
        if task.options.result_expires != "settings"
    }
    results = TaskResult.objects.using(ledger.alias())
    for state, age in conf.get().result_expires.items():
        if (before := _before(now, age)) is not None:
            rows = results.filter(state=state).exclude(task__in=own)
            yield from _of_results(state, rows, before, now)
    for name, age in own.items():
        if (before := _before(now, age)) is not None:
            rows = results.filter(task=name, state__in=TERMINAL)
            yield from _of_results(f"task {name}", rows, before, now)
    if (before := _before(now, conf.get().result_expires["FAILURE"])) is not None:
        yield Part("failed chords", _failed_chords(before))
    if (before := _before(now, conf.get().schedule_runs_expire)) is not None:
        yield Part("schedule runs", _runs(before))


def _failed_chords(before: dt.datetime) -> QuerySet[TaskGroup]:
    """Those that wait for an operator to run a failed member again, or for a size that nobody
    tells. The table is small: the others are deleted when they are joined."""
    groups = TaskGroup.objects.using(ledger.alias())
    return groups.filter(Q(remaining=0) | Q(size=0), created_at__lt=before)


def _before(now: dt.datetime, age: float | None) -> dt.datetime | None:
    """The moment that so many seconds lie behind; None: there is none."""
    if age is None:
        return None
    try:
        return now - dt.timedelta(seconds=age)
    except OverflowError:  # longer than there has been time
        return None


def _of_results(
    what: str, rows: QuerySet[TaskResult], before: dt.datetime, now: dt.datetime
) -> Iterator[Part]:
    """Rows that ended before this moment, without reading those that were sent since.

    Our ids are in the order of sending. Other senders' may be anything: what sorts behind every id
    of today is looked through as well. The few between are found when today is long ago.
    """
    rows = rows.filter(finished_at__lt=before)
    yield Part(what, rows.filter(id__lt=_first_id(before)))
    yield Part(what, rows.filter(id__gt=_first_id(now + _AHEAD)))


def _first_id(at: dt.datetime) -> str:
    """No id of ours that was made since this moment sorts before it."""
    milliseconds = max(0, int(at.timestamp() * 1000))
    return str(uuid.UUID(int=milliseconds << 80))


def _runs(before: dt.datetime) -> QuerySet[ScheduleRun]:
    runs = ScheduleRun.objects.using(router.db_for_write(ScheduleRun))
    newer = runs.filter(schedule=OuterRef("schedule"), due_at__gt=OuterRef("due_at"))
    enough = newer.order_by("due_at")[KEPT_RUNS - 1 : KEPT_RUNS]
    return runs.filter(Exists(enough), at__lt=before)


# ------------------------------------------------------------------------------- deleting


def _delete(rows: QuerySet[Any]) -> Iterator[int]:
    """Delete them in batches; the size of each."""
    last: Any = None
    while True:
        # On from the last one, so that what may not go is passed over once, not in each batch.
        rest = rows if last is None else rows.filter(pk__gt=last)
        gone = _delete_some(rest.order_by("pk"))
        if not gone:
            return
        yield len(gone)
        last = gone[-1]


def _delete_some(rows: QuerySet[Any]) -> list[Any]:
    """Delete the first of them; their keys."""
    alias = rows.db
    features = connections[alias].features
    if not rows.exists():
        return []  # without a write lock, which SQLite's transactions take at once
    with transaction.atomic(using=alias):
        if features.has_select_for_update:
            # A row that an operator sends again at this moment has no end any more.
            rows = rows.select_for_update(
                of=("self",) if features.has_select_for_update_of else (),
                skip_locked=features.has_select_for_update_skip_locked,
            )
        keys = list(rows.values_list("pk", flat=True)[:_BATCH])
        _delete_keys(rows.model, keys, alias)
    return keys


def _delete_keys(model: type[Model], keys: Iterable[Any], alias: str) -> None:
    if model is TaskResult:
        # There is no constraint in the database, so it is said here what goes first.
        TaskAttempt.objects.using(alias).filter(result_id__in=keys).delete()
    model._default_manager.using(alias).filter(pk__in=keys).delete()
