"""Crontabs: what one says, and the local times that match it.

Five fields as everywhere: minute, hour, day of month, month, day of week. Six fields have the
**second in front**, as in Quartz, Spring and most others. Where a day field is `?`, the other one
decides alone, as there.

This is the only parser: `celery.py` reads Celery's fields with it, and what says a crontab in words
reads `Crontab.fields`.
"""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _


class Kind(NamedTuple):
    """What a field may say."""

    name: Any
    #: Its values, for messages.
    shown: str
    first: int
    last: int
    #: Names of its values, beginning with the first value's.
    names: tuple[str, ...] = ()


SECOND = Kind(_("second"), "0-59", 0, 59)
MINUTE = Kind(_("minute"), "0-59", 0, 59)
HOUR = Kind(_("hour"), "0-23", 0, 23)
DAY = Kind(_("day of month"), "1-31, L", 1, 31)
MONTH = Kind(
    _("month"),
    "1-12, jan-dec",
    1,
    12,
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
)
WEEKDAY = Kind(
    _("day of week"),
    "0-7, sun-sat, fri#2, L5",
    0,
    6,
    ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
)

#: The last one of a month, among days and in `Part.nth`.
LAST = -1

_PART = re.compile(
    r"(?:\*|(?P<first>[a-z]+|[0-9]{1,4})(?:-(?P<last>[a-z]+|[0-9]{1,4}))?)(?:/(?P<step>[0-9]{1,4}))?"
)
_NTH = re.compile(r"([a-z]+|[0-9])#([1-5])")
_LAST_OF = re.compile(r"l([0-9])")

#: Years without any match after which there is none: a 29 February comes within eight.
_YEARS = 50
_ANY_DAY = dt.datetime(2000, 1, 1)  # noqa: DTZ001  a local time


class Part(NamedTuple):
    """One element of a field's list: every ``step``-th value from first to last. When ``last`` is
    less than ``first``, it goes on from the field's first value. Sunday as the last day is 7."""

    first: int
    last: int
    step: int = 1
    #: Of a day of the week: which one of the month (1 to 5, or LAST); 0: each.
    nth: int = 0

    def values(self, kind: Kind) -> list[int]:
        """Sunday is 0 here."""
        if self.first <= self.last:
            every = list(range(self.first, self.last + 1))
        else:
            every = [*range(self.first, kind.last + 1), *range(kind.first, self.last + 1)]
        return [0 if kind is WEEKDAY and n == 7 else n for n in every[:: self.step]]


class Field(NamedTuple):
    """What one field says."""

    kind: Kind
    #: In lower case; a question mark is a star.
    text: str
    parts: tuple[Part, ...]

    @property
    def any(self) -> bool:
        """Whether it is a star, which leaves everything to the other fields."""
        return self.text in ("*", "*/1")

    @property
    def every(self) -> int:
        """n of ``*/n`` when that is every n without a break, at the end of the field's values as
        well; 0 otherwise."""
        step = self.parts[0].step
        whole = (self.kind.last - self.kind.first + 1) % step == 0
        return step if self.text == f"*/{step}" and whole else 0

    @property
    def values(self) -> frozenset[int]:
        """The values of all parts, LAST for the last day of the month; no "fri#2" and "L5"."""
        return frozenset(n for part in self.parts if not part.nth for n in part.values(self.kind))


class Fields(NamedTuple):
    second: Field
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field


@dataclass(frozen=True, slots=True)
class Crontab:
    """What a crontab says, in numbers."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    #: LAST: the last one of the month.
    days: frozenset[int]
    #: 0: Sunday.
    weekdays: frozenset[int]
    #: Pairs of a weekday and which one of the month it is, or LAST.
    nth_weekdays: frozenset[tuple[int, int]]
    #: Whether a day needs to fit only one of the day fields. As in cron, that is so when neither
    #: begins with a star; nor is Quartz's question mark, which leaves the day to the other field.
    either_day: bool
    #: A star in the second, minute or hour: see `jobs.timing.wallclock`.
    elapsed: bool
    #: As it was written, for those who say it in words.
    fields: Fields = field(compare=False, repr=False)

    def times(self, after: dt.datetime) -> Iterator[dt.datetime]:
        """Matching local times later than this one, in order; none when there is none within
        50 years."""
        first = after.replace(microsecond=0) + dt.timedelta(seconds=1)
        day, one = first.date(), dt.timedelta(days=1)
        last_year = min(day.year + _YEARS, dt.MAXYEAR - 1)
        while day.year <= last_year:
            if day.month not in self.months:
                day = (day.replace(day=28) + 4 * one).replace(day=1)
                continue
            if self._fits(day):
                floor = first.time() if day == first.date() else dt.time()
                for time in self._times_of_day(floor):
                    yield dt.datetime.combine(day, time)
            day += one

    def _fits(self, day: dt.date) -> bool:
        weekday, length = day.isoweekday() % 7, calendar.monthrange(day.year, day.month)[1]
        by_date = day.day in self.days or (LAST in self.days and day.day == length)
        by_weekday = weekday in self.weekdays or bool(
            self.nth_weekdays
            and (
                (weekday, (day.day + 6) // 7) in self.nth_weekdays
                or (day.day + 7 > length and (weekday, LAST) in self.nth_weekdays)
            )
        )
        return (by_date or by_weekday) if self.either_day else (by_date and by_weekday)

    def _times_of_day(self, floor: dt.time) -> Iterator[dt.time]:
        """The times of one day, from this one on."""
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
    """Read a crontab. Raises `ValidationError`, naming the field that is wrong."""
    texts = text.lower().split()
    if len(texts) == len(Fields._fields) - 1:
        texts.insert(0, "0")
    if len(texts) != len(Fields._fields):
        raise ValidationError(
            _(
                "Write five fields: minute, hour, day of month, month, day of week. "
                "For example “30 6 * * mon-fri”. A sixth one in front is the second."
            ),
            code="crontab",
        )
    second, minute, hour, day, month, weekday = texts
    if day == weekday == "?":
        raise ValidationError(
            _("“?” leaves the day to the other day field; only one of the two can do that."),
            code="crontab",
        )
    fields = Fields(
        read(second, SECOND),
        read(minute, MINUTE),
        read(hour, HOUR),
        read("*" if day == "?" else day, DAY),
        read(month, MONTH),
        read("*" if weekday == "?" else weekday, WEEKDAY),
    )
    found = Crontab(
        seconds=tuple(sorted(fields.second.values)),
        minutes=tuple(sorted(fields.minute.values)),
        hours=tuple(sorted(fields.hour.values)),
        months=fields.month.values,
        days=fields.day.values,
        weekdays=fields.weekday.values,
        nth_weekdays=frozenset((p.first, p.nth) for p in fields.weekday.parts if p.nth),
        either_day=not any(one.text.startswith("*") for one in (fields.day, fields.weekday)),
        elapsed=any(one.text.startswith("*") for one in fields[:3]),
        fields=fields,
    )
    if next(found.times(_ANY_DAY), None) is None:
        raise ValidationError(_("This never happens: no such day exists."), code="crontab")
    return found


def read(text: str, kind: Kind) -> Field:
    """Read one field, in lower case. Raises `ValidationError`."""
    parts = []
    for one in text.split(","):
        if kind is DAY and one == "l":
            parts.append(Part(LAST, LAST))
            continue
        if kind is WEEKDAY and (of_month := _NTH.fullmatch(one) or _LAST_OF.fullmatch(one)):
            day, *nth = of_month.groups()
            number = _number(day, kind, text) % 7
            parts.append(Part(number, number, nth=int(nth[0]) if nth else LAST))
            continue
        found = _PART.fullmatch(one)
        if found is None or (found["step"] and not int(found["step"])):
            raise _refused(text, kind)
        step = int(found["step"] or 1)
        if found["first"] is None:
            parts.append(Part(kind.first, kind.last, step))
            continue
        first = last = _number(found["first"], kind, text)
        if found["last"] == "l" and kind is DAY:
            last = kind.last  # "28-L"
        elif found["last"]:
            last = _number(found["last"], kind, text)
        elif found["step"]:
            last = kind.last
        if kind is WEEKDAY and first == 7:
            # Sunday at the beginning of a range is 0; at its end alone it is 7: "0-7" is each day.
            first, last = 0, 0 if last == 7 else last
        parts.append(Part(first, last, step))
    return Field(kind, text, tuple(parts))


def _number(word: str, kind: Kind, text: str) -> int:
    if word in kind.names:
        return kind.names.index(word) + kind.first
    # ASCII digits alone: nothing else here, nor the admin, reads those of other scripts.
    number = int(word) if word.isascii() and word.isdecimal() else -1
    if not kind.first <= number <= kind.last and not (kind is WEEKDAY and number == 7):
        raise _refused(text, kind)
    return number


def _refused(text: str, kind: Kind) -> ValidationError:
    return ValidationError(
        _("“%(value)s” is not a valid %(field)s: use %(values)s, *, ranges, lists, steps."),
        code="crontab",
        params={"value": text, "field": kind.name, "values": kind.shown},
    )
