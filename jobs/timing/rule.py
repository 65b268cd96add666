"""What a schedule says about time: a crontab, an interval, or one moment, between two bounds."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from jobs.timing import crontab as crontabs
from jobs.timing import wallclock

MIN_INTERVAL = dt.timedelta(seconds=1)
#: Keeps sums of dates far away from the end of the calendar.
MAX_INTERVAL = dt.timedelta(days=36_500)

#: The shortest time there is.
_MOMENT = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When something is due. At most one of ``crontab``, ``interval`` and ``at`` is set."""

    crontab: str = ""
    interval: dt.timedelta | None = None
    at: dt.datetime | None = None
    #: In which the crontab is read.
    zone: str = "UTC"
    #: No due time before it.
    start: dt.datetime | None = None
    #: No due time after it.
    end: dt.datetime | None = None
    #: An interval's due times are ``start + k * interval`` or, without a start, ``anchor + …``.
    anchor: dt.datetime | None = None

    def following(self, after: dt.datetime) -> dt.datetime | None:
        """The first due time later than ``after``, in UTC, or None when there is none.

        Raises `ValidationError` for a rule that isn't valid.
        """
        after = after.astimezone(dt.UTC)
        if self.start is not None:
            after = max(after, self.start.astimezone(dt.UTC) - _MOMENT)
        due = None
        if self.crontab:
            crontab = crontabs.parse(self.crontab)
            due = wallclock.following(crontab, wallclock.zone_of(self.zone), after)
        elif self.interval is not None:
            _check_interval(self.interval)
            anchor = (self.start or self.anchor or after).astimezone(dt.UTC)
            due = anchor + ((after - anchor) // self.interval + 1) * self.interval
        elif self.at is not None and self.at > after:
            due = self.at.astimezone(dt.UTC)
        return None if due is None or (self.end is not None and due > self.end) else due

    def count(self, first: dt.datetime, before: dt.datetime, most: int) -> int:
        """How many due times there are from ``first``, which is one, to ``before``, which isn't
        counted. Of a crontab's, at most ``most``: they have to be walked through."""
        if self.interval is not None:
            return max(-((first - before) // self.interval), 0)
        found, due = 0, first if first < before else None
        while due is not None and due < before and found < most:
            found, due = found + 1, self.following(due)
        return found

    def newest(self, first: dt.datetime, before: dt.datetime) -> dt.datetime:
        """The last due time before ``before``; ``first`` is one, and lies before it."""
        window = dt.timedelta(seconds=1)
        found = first
        # Further and further back, so that few have to be walked through, however many there are.
        while before - window > first:
            due = self.following(before - window - _MOMENT)
            if due is not None and due < before:
                found = due
                break
            window *= 4
        while (due := self.following(found)) is not None and due < before:
            found = due
        return found


def validate(
    crontab: str = "",
    interval: dt.timedelta | None = None,
    zone: str = "UTC",
    *,
    at: dt.datetime | None = None,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
) -> None:
    """Raises `ValidationError` by field of `Schedule`: ``crontab``, ``interval``, ``at``,
    ``timezone``, ``end_at``; all that is wrong at once."""
    problems: dict[str, ValidationError] = {}
    with _collected(problems, "crontab"):
        if crontab:
            crontabs.parse(crontab)
        elif interval is None and at is None:
            raise ValidationError(_("Set a crontab, an interval or a moment."), code="required")
    with _collected(problems, "interval"):
        if interval is not None:
            _check_interval(interval)
            _only_one(bool(crontab))
    with _collected(problems, "at"):
        if at is not None:
            _only_one(bool(crontab) or interval is not None)
            if (start is not None and at < start) or (end is not None and at > end):
                raise ValidationError(_("This is not between start and end."), code="at")
    with _collected(problems, "timezone"):
        wallclock.zone_of(zone)
    with _collected(problems, "end_at"):
        if start is not None and end is not None and end <= start:
            raise ValidationError(_("The end must be later than the start."), code="end")
    if problems:
        raise ValidationError(problems)


@contextlib.contextmanager
def _collected(problems: dict[str, ValidationError], field: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        problems[field] = error


def _only_one(another: bool) -> None:
    if another:
        raise ValidationError(
            _("Set either a crontab, an interval or a moment, and only one of them."), code="one"
        )


def _check_interval(interval: dt.timedelta) -> None:
    if interval < MIN_INTERVAL:
        raise ValidationError(_("An interval must be at least one second."), code="interval")
    if interval > MAX_INTERVAL:
        raise ValidationError(_("An interval must be at most a hundred years."), code="interval")
