"""Crontabs: what one says, and the local times that match it.

Five fields as everywhere: minute, hour, day of month, month, day of week. Six fields have the
**second in front**, as in Quartz, Spring and most others. Where a day field is `?`, the other one
decides alone, as there.
"""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _


class _Kind(NamedTuple):
    """What a field may say."""

    name: Any
    #: Its values, for messages.
    shown: str
    first: int
    last: int
    #: Of its values, the first one's first.
    names: tuple[str, ...] = ()


_DAY = _Kind(_("day of month"), "1-31, L", 1, 31)
_WEEKDAY = _Kind(
    _("day of week"),
    "0-7, sun-sat, fri#2, L5",
    0,
    6,
    ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
)
_MONTH = _Kind(
    _("month"),
    "1-12, jan-dec",
    1,
    12,
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
)
_KINDS = (
    _Kind(_("second"), "0-59", 0, 59),
    _Kind(_("minute"), "0-59", 0, 59),
    _Kind(_("hour"), "0-23", 0, 23),
    _DAY,
    _MONTH,
    _WEEKDAY,
)
#: The places of the two day fields.
_DAYS = (3, 5)

_PART = re.compile(
    r"(?:\*|(?P<first>[a-z]+|[0-9]{1,4})(?:-(?P<last>[a-z]+|[0-9]{1,4}))?)(?:/(?P<step>[0-9]{1,4}))?"
)
_NTH = re.compile(r"([a-z]+|[0-9])#([1-5])")
_LAST_OF = re.compile(r"l([0-9])")

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
    #: A day needs to fit only one of the day fields. As in cron: when neither begins with a star;
    #: and neither is Quartz's question mark, which leaves it to the other one.
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
    _read_question_mark(fields)
    second, minute, hour, day, month, weekday = (
        _parts(field, kind) for field, kind in zip(fields, _KINDS, strict=True)
    )
    found = Crontab(
        seconds=tuple(sorted(second)),
        minutes=tuple(sorted(minute)),
        hours=tuple(sorted(hour)),
        months=frozenset(month),
        days=frozenset(day),
        weekdays=frozenset(value for value in weekday if isinstance(value, int)),
        nth_weekdays=frozenset(value for value in weekday if isinstance(value, tuple)),
        either_day=not any(fields[place].startswith("*") for place in _DAYS),
        elapsed=any(field.startswith("*") for field in fields[:3]),
    )
    if next(found.times(_ANY_DAY), None) is None:
        raise ValidationError(_("This never happens: no such day exists."), code="crontab")
    return found


def _fields(text: str) -> list[str]:
    """Six of them."""
    fields = text.lower().split()
    if len(fields) == len(_KINDS) - 1:
        return ["0", *fields]
    if len(fields) == len(_KINDS):
        return fields
    raise ValidationError(
        _(
            "Write five fields: minute, hour, day of month, month, day of week. "
            "For example “30 6 * * mon-fri”. A sixth one in front is the second."
        ),
        code="crontab",
    )


def _read_question_mark(fields: list[str]) -> None:
    """As in Quartz and Spring: a day field that leaves the day to the other one."""
    asked = [place for place in _DAYS if fields[place] == "?"]
    if len(asked) == len(_DAYS):
        raise ValidationError(
            _("“?” leaves the day to the other day field; only one of the two can do that."),
            code="crontab",
        )
    for place in asked:
        fields[place] = "*"


# ------------------------------------------------------------------------------- one field


def _parts(field: str, kind: _Kind) -> set[Any]:
    """Its values; of days of a week also pairs, as in `Crontab.nth_weekdays`."""
    found: set[Any] = set()
    for part in field.split(","):
        if kind is _DAY and part == "l":
            found.add(_LAST)
        elif kind is _WEEKDAY and (one := _NTH.fullmatch(part)):
            found.add((_number(one[1], kind, field), int(one[2])))
        elif kind is _WEEKDAY and (one := _LAST_OF.fullmatch(part)):
            found.add((_number(one[1], kind, field), _LAST))
        else:
            found.update(_values(part, kind, field))
    return found


def _values(part: str, kind: _Kind, field: str) -> list[int]:
    found = _PART.fullmatch(part)
    if found is None or (found["step"] and not int(found["step"])):
        raise _refused(field, kind)
    step = int(found["step"] or 1)
    if found["first"] is None:
        return list(range(kind.first, kind.last + 1, step))
    first = last = _number(found["first"], kind, field)
    if found["last"] == "l" and kind is _DAY:
        last = kind.last  # "28-L"
    elif found["last"]:
        last = _number(found["last"], kind, field)
        if kind is _WEEKDAY and _is_seven(found["last"]) and not _is_seven(found["first"]):
            last = 7  # Sunday at the end of a week: "0-7" is each day
    elif found["step"]:
        last = kind.last
    if first <= last:
        every = list(range(first, last + 1))
    else:
        every = [*range(first, kind.last + 1), *range(kind.first, last + 1)]
    return [_sunday(value, kind) for value in every[::step]]


def _number(word: str, kind: _Kind, field: str) -> int:
    if word in kind.names:
        return kind.names.index(word) + kind.first
    # Digits alone: of other scripts' nothing here nor in the admin knows.
    number = int(word) if word.isascii() and word.isdecimal() else -1
    number = _sunday(number, kind)
    if not kind.first <= number <= kind.last:
        raise _refused(field, kind)
    return number


def _is_seven(word: str) -> bool:
    return word.isdecimal() and int(word) == 7


def _sunday(number: int, kind: _Kind) -> int:
    return 0 if kind is _WEEKDAY and number == 7 else number


def _refused(field: str, kind: _Kind) -> ValidationError:
    return ValidationError(
        _("“%(value)s” is not a valid %(field)s: use %(values)s, *, ranges, lists, steps."),
        code="crontab",
        params={"value": field, "field": kind.name, "values": kind.shown},
    )
