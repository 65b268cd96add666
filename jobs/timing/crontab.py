"""Crontabs: what one says, and the local times that match it. croniter reads, this counts.

Five fields as everywhere: minute, hour, day of month, month, day of week. Six fields have the
**second in front**, as in Quartz, Spring and most others (croniter's own default is the end).

croniter is asked once for each text: reading takes it far longer than all the counting.
"""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from croniter import CroniterError, croniter
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

#: Name and possible values of each of five fields; the second is in front of them.
_SECOND = (_("second"), "0-59")
_FIELDS = (
    (_("minute"), "0-59"),
    (_("hour"), "0-23"),
    (_("day of month"), "1-31, L"),
    (_("month"), "1-12, jan-dec"),
    (_("day of week"), "0-7, sun-sat, fri#2, L5"),
)

#: What croniter takes beyond this: random values (``r``, ``h``), and nearest weekdays (``15w``).
_REFUSED = re.compile(r"(^|,)[hr](?![a-z])|(^|,)(\d+w|w\d+)", re.IGNORECASE)

#: Years without any match after which there is none: a 29 February comes within eight.
_YEARS = 50
_ANY_DAY = dt.datetime(2000, 1, 1)  # noqa: DTZ001  a local time
_LAST = -1


@dataclass(frozen=True, slots=True)
class Crontab:
    """What a crontab says, in numbers."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    #: -1: the last one of the month.
    days: frozenset[int]
    #: 0: Sunday.
    weekdays: frozenset[int]
    #: (Weekday, which one of the month), -1: the last one.
    nth_weekdays: frozenset[tuple[int, int]]
    #: A day needs to fit only one of the day fields. As in cron: when neither begins with a star.
    either_day: bool
    #: A star in the second, minute or hour: see `jobs.timing.wallclock`.
    elapsed: bool

    def times(self, after: dt.datetime) -> Iterator[dt.datetime]:
        """Matching local times later than this one, in order; none when there is none within
        50 years."""
        first = after.replace(microsecond=0) + dt.timedelta(seconds=1)
        for day in self._dates(first.date()):
            floor = first.time() if day == first.date() else dt.time()
            for time in self._times_of_day(floor):
                yield dt.datetime.combine(day, time)

    def _dates(self, day: dt.date) -> Iterator[dt.date]:
        one, last = dt.timedelta(days=1), min(day.year + _YEARS, dt.MAXYEAR - 1)
        while day.year <= last:
            if day.month not in self.months:
                day = (day.replace(day=28) + 4 * one).replace(day=1)
                continue
            if self._fits(day):
                yield day
            day += one

    def _fits(self, day: dt.date) -> bool:
        weekday, length = day.isoweekday() % 7, calendar.monthrange(day.year, day.month)[1]
        by_date = day.day in self.days or (_LAST in self.days and day.day == length)
        by_weekday = weekday in self.weekdays or bool(
            self.nth_weekdays
            and (
                (weekday, (day.day + 6) // 7) in self.nth_weekdays
                or (day.day + 7 > length and (weekday, _LAST) in self.nth_weekdays)
            )
        )
        return (by_date or by_weekday) if self.either_day else (by_date and by_weekday)

    def _times_of_day(self, floor: dt.time) -> Iterator[dt.time]:
        """From this one on."""
        for hour in self.hours[bisect_left(self.hours, floor.hour) :]:
            same_hour = hour == floor.hour
            for minute in _from(self.minutes, floor.minute if same_hour else 0):
                same_minute = same_hour and minute == floor.minute
                for second in _from(self.seconds, floor.second if same_minute else 0):
                    yield dt.time(hour, minute, second)


def _from(values: tuple[int, ...], least: int) -> tuple[int, ...]:
    return values[bisect_left(values, least) :] if least else values


@functools.lru_cache(maxsize=16_384)
def parse(text: str) -> Crontab:
    """What a crontab says. Raises `ValidationError`, naming the field that is wrong."""
    fields = _fields(text)
    _check_each(fields)
    try:
        found = _numbers(fields)
    except CroniterError as error:
        raise ValidationError(
            _("“%(crontab)s” is not a valid crontab: %(error)s"),
            code="crontab",
            params={"crontab": text, "error": error},
        ) from error
    if next(found.times(_ANY_DAY), None) is None:
        raise ValidationError(_("This never happens: no such day exists."), code="crontab")
    return found


def _fields(text: str) -> list[str]:
    """Six of them."""
    fields = text.lower().split()
    if len(fields) == len(_FIELDS):
        return ["0", *fields]
    if len(fields) == len(_FIELDS) + 1:
        return fields
    raise ValidationError(
        _(
            "Write five fields: minute, hour, day of month, month, day of week. "
            "For example “30 6 * * mon-fri”. A sixth one in front is the second."
        ),
        code="crontab",
    )


def _check_each(fields: list[str]) -> None:
    """One at a time, so that the message can name the wrong one."""
    for place, ((name, values), field) in enumerate(zip((_SECOND, *_FIELDS), fields, strict=True)):
        alone = ["*"] * len(fields)
        alone[place] = field
        try:
            _read(alone)
            understood = not _REFUSED.search(field)
        except CroniterError:
            understood = False
        if not understood:
            raise ValidationError(
                _("“%(value)s” is not a valid %(field)s: use %(values)s, *, ranges, lists, steps."),
                code="crontab",
                params={"value": field, "field": name, "values": values},
            )


def _read(fields: list[str]) -> Any:
    return croniter(" ".join(fields), 0, second_at_beginning=True)


def _numbers(fields: list[str]) -> Crontab:
    read = _read(fields)
    # In croniter's own order, whatever the text's: the second last.
    minute, hour, day, month, weekday, second = read.expanded
    nth = read.nth_weekday_of_month
    return Crontab(
        seconds=tuple(_values(second, range(60))),
        minutes=tuple(_values(minute, range(60))),
        hours=tuple(_values(hour, range(24))),
        months=frozenset(_values(month, range(1, 13))),
        days=frozenset(_values(day, range(1, 32))),
        weekdays=frozenset(() if nth else _values(weekday, range(7))),
        nth_weekdays=frozenset((w, _number(n)) for w, which in nth.items() for n in which),
        either_day=not fields[3].startswith("*") and not fields[5].startswith("*"),
        elapsed=any(field.startswith("*") for field in fields[:3]),
    )


def _values(read: list[Any], every: range) -> list[int]:
    return list(every) if "*" in read else sorted(_number(value) for value in read)


def _number(value: Any) -> int:
    return _LAST if value == "l" else int(value)
