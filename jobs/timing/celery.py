"""`crontab(…)` with Celery's arguments, made into the text of a crontab. Pure.

Celery's fields are those of a crontab but for three things, which are translated here: a range may
run over the end (``fri-mon``), names may be written out, and when both days are restricted, both
must fit, where a crontab is content with either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from jobs.exceptions import ConfigurationError

#: A number, a text such as ``"*/15"`` or ``"mon-fri"``, or several numbers.
Field = int | str | Iterable[int]


@dataclass(frozen=True, slots=True)
class Crontab:
    """A rule in the form that schedules keep."""

    text: str
    #: Empty: the project's ``TIME_ZONE``.
    timezone: str = ""

    def __str__(self) -> str:
        return self.text


def crontab(
    minute: Field = "*",
    hour: Field = "*",
    day_of_week: Field = "*",
    day_of_month: Field = "*",
    month_of_year: Field = "*",
    *,
    timezone: str = "",
) -> Crontab:
    """The rule that Celery's ``crontab`` of these arguments is; Sunday is 0.

    Raises `ConfigurationError` for a field that can't be read, and for days of week and month that
    no crontab can combine as Celery does.
    """
    week = _WEEKDAY.read(day_of_week)
    days, weekdays = _days(_DAY.read(day_of_month), week)
    return Crontab(
        " ".join(
            (
                _MINUTE.read(minute).text,
                _HOUR.read(hour).text,
                days,
                _MONTH.read(month_of_year).text,
                weekdays,
            )
        ),
        timezone,
    )


# ------------------------------------------------------------------------------- one field


class _Read(NamedTuple):
    values: frozenset[int]
    text: str


_WEEK_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTH_NAMES = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_PART = re.compile(r"(?:(?P<star>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")


class _Kind(NamedTuple):
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()

    def read(self, given: Field) -> _Read:
        if isinstance(given, str):
            values, plain = self._parse(given.replace(" ", ""))
            text = given.replace(" ", "").lower()
        else:
            values, plain, text = self._numbers(given), False, ""
        if values == frozenset(range(self.first, self.last + 1)):
            return _Read(values, "*")
        return _Read(values, text if plain else _ranges(values))

    def _parse(self, text: str) -> tuple[frozenset[int], bool]:
        """The values, and whether a crontab understands the text as it is."""
        values: set[int] = set()
        plain = True
        for part in text.split(","):
            found = _PART.fullmatch(part)
            # A step without a range is a crontab's, but not Celery's.
            if found is None or (found["step"] and not (found["star"] or found["last"])):
                self._refuse(text)
            if found["star"]:
                expanded = list(range(self.first, self.last + 1))
            else:
                first = self._number(found["first"], text)
                last = self._number(found["last"] or found["first"], text)
                expanded = self._span(first, last)
                names = [n for n in (found["first"], found["last"]) if n and not n.isdigit()]
                ascending = first < last or not found["last"]
                plain = plain and ascending and all(len(n) == 3 for n in names)
            step = int(found["step"] or 1)
            if step == 0:
                self._refuse(text)
            values.update(expanded[::step])
        return frozenset(values), plain

    def _span(self, first: int, last: int) -> list[int]:
        if first <= last:
            return list(range(first, last + 1))
        return [*range(first, self.last + 1), *range(self.first, last + 1)]

    def _number(self, word: str, text: object) -> int:
        if word.isdecimal():
            number = int(word)
        elif word[:3].lower() in self.names:
            number = self.names.index(word[:3].lower()) + self.first
        else:
            self._refuse(text)
        if not self.first <= number <= self.last:
            self._refuse(text)
        return number

    def _numbers(self, given: int | Iterable[int]) -> frozenset[int]:
        numbers = [given] if isinstance(given, int) else given
        if isinstance(given, bool) or not isinstance(numbers, Iterable):
            self._refuse(given)
        numbers = list(numbers)
        if not numbers or not all(
            isinstance(n, int) and self.first <= n <= self.last for n in numbers
        ):
            self._refuse(given)
        return frozenset(numbers)

    def _refuse(self, given: object) -> NoReturn:
        numbers = f"{self.first} to {self.last}"
        names = f", {self.names[0]} to {self.names[-1]}" if self.names else ""
        raise ConfigurationError(
            f"crontab({self.name}={given!r}) can't be read: use {numbers}{names}, '*', "
            "ranges ('1-5'), lists ('1,3') and steps ('*/2', '1-5/2')."
        )


_MINUTE = _Kind("minute", 0, 59)
_HOUR = _Kind("hour", 0, 23)
_DAY = _Kind("day_of_month", 1, 31)
_MONTH = _Kind("month_of_year", 1, 12, _MONTH_NAMES)
_WEEKDAY = _Kind("day_of_week", 0, 6, _WEEK_NAMES)


def _ranges(values: Iterable[int]) -> str:
    """``{1, 2, 3, 7}`` as ``1-3,7``."""
    spans: list[list[int]] = []
    for value in sorted(values):
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


# ---------------------------------------------------------------------------------- days


def _days(month: _Read, week: _Read) -> tuple[str, str]:
    """Day of month and day of week, such that both must fit."""
    # A field that begins with a star makes both count in a crontab, too.
    if month.text.startswith("*") or week.text.startswith("*"):
        return month.text, week.text
    weeks = _whole_weeks(month.values)
    if weeks is None:
        raise ConfigurationError(
            f"crontab(day_of_month={month.text!r}, day_of_week={week.text!r}): Celery runs on days "
            "that are both, a crontab on days that are either. Only whole weeks of a month can be "
            "combined with days of the week ('1-7' with 'mon' is the first Monday). Give one of "
            "the two and let the task look at the other."
        )
    return "*", ",".join(f"{day}#{n}" for n in weeks for day in sorted(week.values))


def _whole_weeks(days: frozenset[int]) -> list[int] | None:
    """``{1, …, 7, 15, …, 21}`` as ``[1, 3]``; None where it isn't made of such sevenths."""
    weeks = sorted({(day - 1) // 7 + 1 for day in days})
    whole = {day for n in weeks for day in range(7 * n - 6, min(7 * n, 31) + 1)}
    return weeks if whole == days else None
