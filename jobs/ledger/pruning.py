"""Delete what is older than it has to be kept: results, and the history of schedules.

Rows go in small transactions that skip what others hold. So pruning may run at any time, in several
processes, and be stopped anywhere.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.db import router, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from jobs import (
    conf,
    ledger,
    registry,
)
from jobs.models import ScheduleRun, TaskAttempt, TaskResult
from jobs.states import TERMINAL, State

#: Rows of one transaction.
_BATCH = 500
#: Runs of each schedule that stay, however old: what the admin shows of it.
KEPT_RUNS = 20
#: How far clocks of senders may be ahead of this machine's.
_AHEAD = dt.timedelta(days=1)


class Part(NamedTuple):
    """Rows that may go."""

    #: An end, ``task <name>`` or ``schedule runs``.
    what: str
    rows: QuerySet[Any]


def prune(
    now: dt.datetime,
    *,
    seconds: float | None = None,
    done: Callable[[str, int], object] = lambda what, count: None,
) -> bool:
    """Delete what is too old, and return whether all of it is gone.

    ``seconds``: start no further batch after that time. ``done``: called after each batch, with the
    name of its part and the number of its rows.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    for what, rows in parts(now):
        alias, rest = rows.db, rows.order_by("pk")
        # Asked first without a write lock, which SQLite's transactions take at once.
        while rest.exists():
            with transaction.atomic(using=alias):
                # A row that an operator sends again at this moment has no end any more.
                keys = list(ledger.lock_rows(rest).values_list("pk", flat=True)[:_BATCH])
                if rows.model is TaskResult:
                    # There is no constraint in the database, so the order is ours to keep.
                    TaskAttempt.objects.using(alias).filter(result_id__in=keys).delete()
                rows.model._default_manager.using(alias).filter(pk__in=keys).delete()
            if not keys:
                break
            done(what, len(keys))
            if ends is not None and time.monotonic() >= ends:
                return False
            # On from the last one, so that rows which may not go are passed over once.
            rest = rows.filter(pk__gt=keys[-1]).order_by("pk")
    return True


def count(now: dt.datetime) -> dict[str, int]:
    """How many rows of each part `prune` would delete."""
    found: dict[str, int] = {}
    for part in parts(now):
        found[part.what] = found.get(part.what, 0) + part.rows.count()
    return {what: number for what, number in found.items() if number}


def parts(now: dt.datetime) -> Iterator[Part]:
    """The rows that may go, in parts of which each is in the order of the index that finds it."""
    own = {
        name: conf.seconds_or_none(task.options.result_expires)
        for name, task in registry.tasks.items()
        if task.options.result_expires != "settings"
    }
    results = ledger.results()
    for state, age in conf.get().result_expires.items():
        if (before := _before(now, age)) is not None:
            succeeded = state == State.SUCCESS
            rows = results.filter(state=state) if succeeded else results.in_state(state)
            rows = rows.exclude(task__in=own)
            yield from _of_results(state, rows, before, now)
    for name, age in own.items():
        if (before := _before(now, age)) is not None:
            rows = results.filter(task=name, state__in=TERMINAL)
            yield from _of_results(f"task {name}", rows, before, now)
    if (before := _before(now, conf.get().result_expires["FAILURE"])) is not None:
        # Those that wait for an operator to run a failed member again, or for a size that never
        # comes. The table is small: the others are deleted when they are joined.
        waiting = ledger.groups().filter(Q(remaining=0) | Q(size=0), created_at__lt=before)
        yield Part("failed chords", waiting)
    if (before := _before(now, conf.get().schedule_runs_expire)) is not None:
        runs = ScheduleRun.objects.using(router.db_for_write(ScheduleRun))
        newer = runs.filter(schedule=OuterRef("schedule"), due_at__gt=OuterRef("due_at"))
        enough = newer.order_by("due_at")[KEPT_RUNS - 1 : KEPT_RUNS]
        yield Part("schedule runs", runs.filter(Exists(enough), at__lt=before))


def _before(now: dt.datetime, age: float | None) -> dt.datetime | None:
    """The moment ``age`` seconds ago. None: nothing is too old."""
    if age is None:
        return None
    try:
        return now - dt.timedelta(seconds=age)
    except OverflowError:  # before the calendar begins
        return None


def _of_results(
    what: str, rows: QuerySet[TaskResult], before: dt.datetime, now: dt.datetime
) -> Iterator[Part]:
    """Rows that ended before this moment, found without reading those that were sent since.

    Our ids are in the order of sending. Ids of other senders may be anything: so all that sort
    behind today's are looked through as well. The few between are found on a later day.
    """
    rows = rows.filter(finished_at__lt=before)
    yield Part(what, rows.filter(id__lt=_first_id(before)))
    yield Part(what, rows.filter(id__gt=_first_id(now + _AHEAD)))


def _first_id(at: dt.datetime) -> str:
    """The lowest id that we could make at this moment."""
    milliseconds = max(0, int(at.timestamp() * 1000))
    return str(uuid.UUID(int=milliseconds << 80))
