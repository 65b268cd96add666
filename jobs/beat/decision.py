"""What becomes of the due times of one schedule, decided as a value. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.models import Misfire, Overlap, Schedule

#: Missed due times of a crontab that are walked through, to be counted.
_COUNTED = 1000
#: The shortest time there is.
_MOMENT = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write and to send."""

    #: Due times to be sent, the oldest first.
    send: Sequence[dt.datetime] = ()
    #: Due times that pass because the last run goes on.
    overlapped: Sequence[dt.datetime] = ()
    #: How many due times pass because they are too old.
    missed: int = 0
    #: The due time that waits for the end of the last run.
    queued_for: dt.datetime | None = None
    #: Not later than now when there is more to be sent than was asked for.
    next_run_at: dt.datetime | None = None


def decide(
    schedule: Schedule, now: dt.datetime, *, busy: bool, grace: dt.timedelta, most: int
) -> Decision:
    """``busy``: the last run has not ended. ``grace``: due times younger than this are not
    missed, only late. ``most``: of due times to look at; the rest stays due.

    Raises `ValidationError` for a rule that isn't valid.
    """
    due, missed, next_run_at = _due(schedule, now, grace, most)
    if schedule.queued_for is not None:
        due.insert(0, schedule.queued_for)
    overlap = Overlap(schedule.overlap)
    free = len(due) if overlap is Overlap.ALLOW else 0 if busy else 1
    send, rest = due[:free], due[free:]
    queued_for = rest.pop(0) if rest and overlap is Overlap.QUEUE else None
    return Decision(send, rest, missed, queued_for, next_run_at)


def _due(
    schedule: Schedule, now: dt.datetime, grace: dt.timedelta, most: int
) -> tuple[list[dt.datetime], int, dt.datetime | None]:
    """Due times that are not to be passed over, how many are, and the next one."""
    following, young = schedule.following, now - grace
    found: list[dt.datetime] = []
    missed, due = 0, schedule.next_run_at
    if due is not None and due < young:
        found, missed, due = _missed(schedule, due, young, now)
    while due is not None and due <= now and len(found) < most:
        found.append(due)
        due = following(due)
    return found, missed, due


def _missed(
    schedule: Schedule, first: dt.datetime, young: dt.datetime, now: dt.datetime
) -> tuple[list[dt.datetime], int, dt.datetime | None]:
    """What the policy makes of due times from ``first`` on that are older than ``young``: those to
    be made up for, how many are not, and the due time to go on with."""
    rule, following = schedule.rule(), schedule.following
    if schedule.misfire == Misfire.ONCE:
        newest = rule.newest(first, young)
        return [newest], rule.count(first, newest, _COUNTED), following(newest)
    if schedule.misfire == Misfire.ALL:
        young = min(young, now - schedule.misfire_window)
        if first >= young:
            return [], 0, first
    return [], rule.count(first, young, _COUNTED), following(young - _MOMENT)
