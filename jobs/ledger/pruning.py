"""Delete what is older than it has to be kept: results, and the history of schedules.

Rows go in small transactions that skip what others hold. So pruning may run at any time, in several
processes, and be stopped anywhere.

Of a ledger in partitions, one that is old enough is dropped. So a result stays until its whole
partition may go, and single rows are deleted where a partition isn't dropped.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import Error as DatabaseError
from django.db import connections, router, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.signals import post_delete, pre_delete

from jobs import (
    conf,
    ledger,
    registry,
)
from jobs.exceptions import ConfigurationError
from jobs.ledger import partitions
from jobs.ledger.partitions import Ledger, Partition, first_id
from jobs.models import ScheduleRun, TaskAttempt, TaskResult
from jobs.models.results import state_is
from jobs.states import TERMINAL, State

log = logging.getLogger("jobs")

#: Rows of one transaction.
_BATCH = 500
#: Runs of each schedule that stay, however old: what the admin shows of it.
KEPT_RUNS = 20
#: How far clocks of senders may be ahead of this machine's.
_AHEAD = dt.timedelta(days=1)
#: Most rows that are moved out of a partition, so that it can be dropped; and how many of them may
#: not have ended, since others wait while these are moved.
_KEPT, _UNFINISHED = 100_000, 200
#: So many are moved in any case, and more if they are less than a tenth.
_FEW = 1_000


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
    for one, count in _drop_partitions(now):
        done(f"partition {one}", count)
        if ends is not None and time.monotonic() >= ends:
            return False
    for what, rows in parts(now):
        alias, rest = rows.db, rows.order_by("pk")
        # Asked first without a write lock, which SQLite's transactions take at once.
        while rest.exists():
            with transaction.atomic(using=alias):
                # A row that an operator sends again at this moment has no end any more.
                keys = list(ledger.lock_rows(rest).values_list("pk", flat=True)[:_BATCH])
                _delete(rows.model._default_manager.using(alias).filter(pk__in=keys), keys)
            if not keys:
                break
            done(what, len(keys))
            if ends is not None and time.monotonic() >= ends:
                return False
            # On from the last one, so that rows which may not go are passed over once.
            rest = rows.filter(pk__gt=keys[-1]).order_by("pk")
    return True


def _delete(rows: QuerySet[Any], keys: Sequence[Any]) -> None:
    """Delete the rows with these keys."""
    if rows.model is TaskResult:
        # There is no constraint in the database, so the order is ours to keep.
        TaskAttempt.objects.using(rows.db).filter(result_id__in=keys).delete()
        relations = {one.related_model for one in TaskResult._meta.related_objects}
        watched = pre_delete.has_listeners(TaskResult) or post_delete.has_listeners(TaskResult)
        if relations == {TaskAttempt} and not watched:
            # Django would read the rows first, whole, since there might be attempts.
            rows._raw_delete(rows.db)
            return
    rows.delete()


def count(now: dt.datetime) -> dict[str, int]:
    """How many rows of each part `prune` would delete."""
    found: dict[str, int] = {}
    gone = Q()
    for one in _old_partitions(partitions.read(), now):
        found[f"partition {one.name}"] = one.rows().exclude(_stays(now)).count()
        gone |= Q(id__gte=one.start, id__lt=one.end)
    for part in parts(now):
        rows = part.rows.exclude(gone) if gone and part.rows.model is TaskResult else part.rows
        found[part.what] = found.get(part.what, 0) + rows.count()
    return {what: number for what, number in found.items() if number}


class Age(NamedTuple):
    """How long some results are kept."""

    #: An end, or ``task <name>``.
    what: str
    #: Seconds since they ended; None: for ever.
    seconds: float | None
    which: Q


def _ages() -> Iterator[Age]:
    own = {
        name: conf.seconds_or_none(task.options.result_expires)
        for name, task in registry.tasks.items()
        if task.options.result_expires != "settings"
    }
    vendor = connections[ledger.alias()].vendor
    for state, age in conf.get().result_expires.items():
        succeeded = state == State.SUCCESS
        which = Q(state=state) if succeeded else state_is(state, vendor=vendor)
        yield Age(state, age, which & ~Q(task__in=own))
    for name, age in own.items():
        yield Age(f"task {name}", age, Q(task=name, state__in=TERMINAL))


def parts(now: dt.datetime) -> Iterator[Part]:
    """The rows that may go, in parts of which each is in the order of the index that finds it."""
    stored = partitions.read()
    for what, age, which in _ages():
        if (before := _before(now, age)) is not None:
            yield from _of_results(what, ledger.results().filter(which), before, now, stored)
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
    what: str, rows: QuerySet[TaskResult], before: dt.datetime, now: dt.datetime, stored: Ledger
) -> Iterator[Part]:
    """Rows that ended before this moment, found without reading those that were sent since.

    Our ids are in the order of sending. Ids of other senders may be anything: so all that sort
    behind today's are looked through as well. The few between are found on a later day.
    """
    rows = rows.filter(finished_at__lt=before)
    yield Part(what, rows.filter(id__lt=stored.floor(first_id(before))))
    yield Part(what, rows.filter(id__gt=first_id(now + _AHEAD)))


# ------------------------------------------------------------------ partitions


def _drop_partitions(now: dt.datetime) -> Iterator[tuple[str, int]]:
    """Drop the partitions that may go, and make those of the time to come. Yields the name of each
    that is dropped, with the number of rows that went with it."""
    stored = partitions.read()
    if not stored.parted:
        return
    try:
        partitions.tidy(_stays(now))
        if partitions.is_short(stored, now):
            partitions.extend(now)
        for one in _old_partitions(stored, now):
            count = one.rows().exclude(_stays(now)).count()
            partitions.drop(one, _stays(now))
            yield one.name, count
    except (DatabaseError, ConfigurationError) as error:
        # The next run tries again. Meanwhile rows go one by one, and new ones into the rest.
        log.warning("the partitions of the ledger are left as they are: %s", error)


def _old_partitions(stored: Ledger, now: dt.datetime) -> Iterator[Partition]:
    """Those of which nearly all rows may go: older than successes are kept, and with few others."""
    before = _before(now, conf.get().result_expires[State.SUCCESS])
    for one in stored.partitions:
        if not one.every or before is None or one.end > first_id(before):
            continue
        kept = one.rows().filter(_stays(now))
        count = kept[: _KEPT + 1].count()
        unfinished = kept.exclude(state__in=TERMINAL)[: _UNFINISHED + 1].count()
        many = count > _KEPT or (count > _FEW and count > one.rows().count() / 10)
        if not many and unfinished <= _UNFINISHED:
            yield one


def _stays(now: dt.datetime) -> Q:
    """The condition of results that may not go."""
    befores = [(age.which, _before(now, age.seconds)) for age in _ages()]
    may_go = [which & Q(finished_at__lt=before) for which, before in befores if before is not None]
    return ~functools.reduce(operator.or_, may_go) if may_go else Q(id__gt="")
