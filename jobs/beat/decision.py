"""Decide, as a value, what becomes of the due times of one schedule. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.models import Misfire, Overlap, Schedule

#: Most missed due times of a crontab that are counted, since each has to be worked out.
_COUNTED = 1000
#: The shortest time there is.
_MOMENT = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write and to send."""

    #: Due times to send, the oldest first.
    send: Sequence[dt.datetime] = ()
    #: Due times to skip because the last run goes on.
    overlapped: Sequence[dt.datetime] = ()
    #: How many due times are skipped because they are too old.
    missed: int = 0
    #: The due time that waits for the end of the last run.
    queued_for: dt.datetime | None = None
    #: Not later than now when more is due than ``most``.
    next_run_at: dt.datetime | None = None


def decide(
    schedule: Schedule, now: dt.datetime, *, busy: bool, grace: dt.timedelta, most: int
) -> Decision:
    """``busy``: the last run has not ended. ``grace``: due times younger than this are late, not
    missed. ``most``: how many due times to look at; the rest stays due.

    Raises `ValidationError` for a rule that isn't valid.
    """
    young, due = now - grace, schedule.next_run_at
    found: list[dt.datetime] = []
    missed = 0
    if due is not None and due < young:
        found, missed, due = _missed(schedule, due, young, now)
    while due is not None and due <= now and len(found) < most:
        found.append(due)
        due = schedule.following(due)
    if schedule.queued_for is not None:
        found.insert(0, schedule.queued_for)
    overlap = Overlap(schedule.overlap)
    free = len(found) if overlap is Overlap.ALLOW else 0 if busy else 1
    send, rest = found[:free], found[free:]
    queued_for = rest.pop(0) if rest and overlap is Overlap.QUEUE else None
    return Decision(send, rest, missed, queued_for, next_run_at=due)


def _missed(
    schedule: Schedule, first: dt.datetime, young: dt.datetime, now: dt.datetime
) -> tuple[list[dt.datetime], int, dt.datetime | None]:
    """Apply `Misfire` to the due times from ``first`` on that are older than ``young``. Gives those
    to send, how many are skipped, and the due time to go on with."""
    rule, following = schedule.rule(), schedule.following
    if schedule.misfire == Misfire.ONCE:
        newest = rule.newest(first, young)
        return [newest], rule.count(first, newest, _COUNTED), following(newest)
    if schedule.misfire == Misfire.ALL:
        young = min(young, now - schedule.misfire_window)
        if first >= young:
            return [], 0, first
    return [], rule.count(first, young, _COUNTED), following(young - _MOMENT)
