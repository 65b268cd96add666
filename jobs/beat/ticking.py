"""One pass of beat: plan what is new, send what is due, in steps of one transaction each."""

from __future__ import annotations

import datetime as dt
import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections, router, transaction
from django.db.models import Exists, Min, OuterRef

from jobs import conf
from jobs.beat import sending
from jobs.beat.decision import Decision, decide
from jobs.ledger.refusals import is_refusal
from jobs.models import Overlap, Schedule, ScheduleRun, TaskResult
from jobs.models.schedules import PLAN_FIELDS, RULE_FIELDS, ScheduleQuerySet, digest_of
from jobs.states import TERMINAL

log = logging.getLogger("jobs.beat")

#: Schedules of one transaction.
_BATCH = 500
#: Messages of one transaction, shared out among its schedules.
_MESSAGES = 1000
#: Transactions of one tick at most, so that beat can be stopped in a flood.
_STEPS = 20
#: Seconds until another look at a schedule that could neither be planned nor sent.
_LEFT_OUT = 60.0
#: Rows of one sweep, which must stay short.
_SWEPT = 50
#: A schedule that was planned further in the future than this was planned by a clock that has been
#: set back since. Clocks of several machines differ by less.
_AHEAD = dt.timedelta(minutes=1)

_RUN_FIELDS = PLAN_FIELDS | {"last_run_at", "last_result", "runs", "skipped", "queued_for"}


def tick(now: dt.datetime) -> dt.datetime | None:
    """Plan what was written past `Schedule.save`, and send what is due.

    Gives the moment at which the next schedule is due, or None when none is planned. If it isn't
    later than ``now``, there is more to do, or another beat is at work on it.
    """
    rows = schedules()
    # Look first, without a transaction: on SQLite that would take the write lock.
    new, waiting = rows.unplanned(), rows.queued(now)
    if _any(new, "created_at") and step(new, lambda found: plan(found, now)) == _BATCH:
        return now
    if _any(waiting, "queued_for"):
        ended = waiting.exclude(Exists(_running().filter(id=OuterRef("last_result"))))
        step(ended, lambda found: fire(found, now), functools.partial(_give_up, now))
    due = rows.earliest()
    for _ in range(_STEPS):
        if due is None or due > now:
            break
        due_rows = schedules().due(now)
        found = step(due_rows, lambda found: fire(found, now), functools.partial(_give_up, now))
        due = schedules().earliest()
        if not found:
            break  # another beat has them
    return due


def _any(rows: ScheduleQuerySet, field: str) -> bool:
    """Whether there are any, by the index on this field. For `exists`, a planner that expects many
    rows would read the table until it meets one."""
    return rows.aggregate(first=Min(field))["first"] is not None


def schedules() -> ScheduleQuerySet:
    """All schedules but those that could neither be planned nor sent a moment ago."""
    rows = Schedule.objects.using(router.db_for_write(Schedule))
    if not _left_out:
        return rows
    now = time.monotonic()
    return rows.exclude(pk__in=[pk for pk, until in _left_out.items() if until > now])


#: Schedule → when to look at it again (monotonic).
_left_out: dict[int, float] = {}


def step(
    rows: ScheduleQuerySet,
    act: Callable[[list[Schedule]], None],
    give_up: Callable[[int, Exception], None] | None = None,
) -> int:
    """Lock some of these rows that nobody else holds, and call ``act`` with them, in a transaction.
    Return how many rows they were.

    When the database refuses what ``act`` makes of them, it is called with each row alone, and
    ``give_up`` for a row that is refused again, with its key and the error. Without ``give_up``, or
    when that is refused as well, the row is left out for a while.
    """
    try:
        return _together(rows, act)
    except Exception as error:
        if not is_refusal(error):
            raise
    keys = list(rows.values_list("pk", flat=True)[:_BATCH])
    for pk in keys:
        try:
            try:
                _together(rows.filter(pk=pk), act)
            except Exception as error:
                if give_up is None or not is_refusal(error):
                    raise
                give_up(pk, error)
        except Exception as error:
            if not is_refusal(error):
                raise
            if pk not in _left_out:
                log.exception("schedule number %s is left out, and looked at again later", pk)
            _left_out[pk] = time.monotonic() + _LEFT_OUT
        else:
            _left_out.pop(pk, None)
    return len(keys)


def _together(rows: ScheduleQuerySet, act: Callable[[list[Schedule]], None]) -> int:
    features = connections[rows.db].features
    if features.has_select_for_update:
        rows = rows.select_for_update(
            skip_locked=features.has_select_for_update_skip_locked,
            of=("self",) if features.has_select_for_update_of else (),
        )
    with transaction.atomic(using=rows.db):
        found = list(rows[:_BATCH])
        act(found)
    return len(found)


# ------------------------------------------------------------------------------- planning


def plan(found: Sequence[Schedule], now: dt.datetime) -> None:
    """Work out and write when schedules are due next. To be called in a transaction."""
    for schedule in found:
        try:
            schedule.plan(now)
        except Exception as error:  # noqa: BLE001  one schedule stops, not beat
            # It counts as planned, so that nobody tries again before it is edited.
            schedule.next_run_at = None
            schedule.planned_for, schedule.planned_at = schedule.digest(), now
            _tell(schedule, error)
    write(found, PLAN_FIELDS | {"queued_for"})


def sweep(now: dt.datetime, after: int) -> int:
    """Look at the next rows behind this key. Plan a row anew if its rule has changed since it was
    planned, or if it was planned while the clock was ahead. Returns the key to go on with, which is
    0 after the last row."""
    rows = schedules().order_by("pk").filter(pk__gt=after)
    looked = list(rows.values_list("pk", "planned_for", "planned_at", *RULE_FIELDS)[:_SWEPT])
    wrong = [
        pk
        for pk, planned_for, planned_at, *rule in looked
        if planned_at is None or planned_at > now + _AHEAD or planned_for != digest_of(rule)
    ]

    def mend(found: list[Schedule]) -> None:
        # A `next_run_at` that was written past `save`, with the rule, counts.
        given = [one for one in found if one.planned_at is None and one.next_run_at and one.enabled]
        for one in given:
            one.planned_for, one.planned_at = one.digest(), now
        write(given, PLAN_FIELDS)
        plan([one for one in found if one not in given], now)

    if wrong:
        step(schedules().filter(pk__in=wrong), mend)
    return looked[-1][0] if len(looked) == _SWEPT else 0


def write(found: Sequence[Schedule], fields: Collection[str]) -> None:
    """Store these fields of rows that the transaction holds.

    One prepared statement, over and over: `bulk_update` takes ten times as long.
    """
    if not found:
        return
    connection = connections[router.db_for_write(Schedule)]
    columns = [field for field in Schedule._meta.concrete_fields if field.name in fields]
    assigned = ", ".join(f"{field.name} = %s" for field in columns)
    # Names of our own model, no values.
    sql = f"UPDATE {Schedule._meta.db_table} SET {assigned} WHERE id = %s"  # noqa: S608
    values = [
        [field.get_db_prep_save(getattr(one, field.name), connection) for field in columns]
        for one in found
    ]
    with connection.cursor() as cursor:
        cursor.executemany(sql, [[*row, one.pk] for row, one in zip(values, found, strict=True)])


def _tell(schedule: Schedule, error: Exception) -> None:
    text = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
    log.error("schedule %r has no next run: %s Correct it and save it.", schedule.name, text)


# --------------------------------------------------------------------------------- firing


def fire(found: Sequence[Schedule], now: dt.datetime) -> None:
    """Send what is due of these schedules, and write when they are due next. To be called in a
    transaction that holds the rows."""
    stale = [one for one in found if one.planned_for not in ("", one.digest())]
    plan(stale, now)  # their rule was changed past `save`: what is due is due by the old one
    found = [one for one in found if one not in stale]
    decisions = _decisions(found, now)
    _record(decisions, now)
    for schedule, decision in decisions:
        schedule.next_run_at = decision.next_run_at
        schedule.planned_for, schedule.planned_at = schedule.digest(), now
        schedule.queued_for = decision.queued_for
        schedule.skipped += decision.missed + len(decision.overlapped)
    write(found, _RUN_FIELDS)


def _give_up(now: dt.datetime, pk: int, error: Exception) -> None:
    """Record the due time of a schedule that can't be sent as a failed call, and go on to the next
    one."""
    rows = schedules()
    with transaction.atomic(using=rows.db):
        schedule = rows.select_for_update().filter(pk=pk).first()
        if schedule is None:
            return
        log.error("schedule %r can't be sent: %s", schedule.name, error, exc_info=error)
        due = schedule.queued_for or schedule.next_run_at
        if due is not None and due <= now:
            task_id = sending.run_id(pk, due)
            try:
                with transaction.atomic(using=rows.db):
                    sending.record_failure(schedule, task_id, error, rows.db)
            except Exception as another:
                if not is_refusal(another):
                    raise
                log.exception("no failed call can be recorded for schedule %r", schedule.name)
                task_id = ""
            run = ScheduleRun(schedule=schedule, due_at=due, at=now, result=task_id)
            ScheduleRun.objects.using(rows.db).bulk_create([run], ignore_conflicts=True)
            schedule.last_run_at, schedule.last_result = due, task_id
            schedule.runs += 1
        schedule.queued_for = None
        schedule.plan(now)
        write([schedule], _RUN_FIELDS)


def _decisions(found: Sequence[Schedule], now: dt.datetime) -> list[tuple[Schedule, Decision]]:
    grace = dt.timedelta(seconds=conf.get().misfire_grace_seconds)
    most = max(_MESSAGES // max(len(found), 1), 1)
    asked = [one.last_result for one in found if one.overlap != Overlap.ALLOW and one.last_result]
    busy = set(_running().filter(id__in=asked).values_list("id", flat=True)) if asked else set()
    decisions = []
    for schedule in found:
        try:
            decision = decide(
                schedule, now, busy=schedule.last_result in busy, grace=grace, most=most
            )
        except Exception as error:  # noqa: BLE001  one schedule stops, not beat
            _tell(schedule, error)
            due = schedule.next_run_at
            decision = Decision(send=() if due is None else (due,))
        decisions.append((schedule, decision))
    return decisions


def _running() -> Any:
    """The results of calls that have not ended."""
    return TaskResult.objects.using(router.db_for_write(Schedule)).exclude(state__in=TERMINAL)


def _record(decisions: Iterable[tuple[Schedule, Decision]], now: dt.datetime) -> None:
    """Send what was decided, write the history, and count the runs."""
    alias = router.db_for_write(Schedule)
    sent = {
        sending.run_id(one.pk, due): (one, due)
        for one, decision in decisions
        for due in decision.send
    }
    # What was sent before, since a clock went back, or was skipped by hand, isn't sent again.
    results = TaskResult.objects.using(alias).filter(id__in=sent).values_list("id", flat=True)
    history = ScheduleRun.objects.using(alias).filter(
        schedule__in={one.pk for one, _ in sent.values()},
        due_at__in={due for _, due in sent.values()},
    )
    known, past = set(results), set(history.values_list("schedule_id", "due_at"))
    for task_id, (one, due) in list(sent.items()):
        if task_id in known or (one.pk, due) in past:
            del sent[task_id]
    if sent:
        sending.send([sending.run_of(one, due) for one, due in sent.values()], alias)
    for task_id, (one, due) in sent.items():
        one.last_run_at, one.last_result = due, task_id
        one.runs += 1
    runs = [
        ScheduleRun(schedule=one, due_at=due, at=now, result=task_id)
        for task_id, (one, due) in sent.items()
    ]
    runs += [
        ScheduleRun(schedule=one, due_at=due, at=now, outcome=ScheduleRun.Outcome.OVERLAPPED)
        for one, decision in decisions
        for due in decision.overlapped
    ]
    ScheduleRun.objects.using(alias).bulk_create(runs, ignore_conflicts=True)
