"""`crontab(…)` and `schedule(…)` with Celery's arguments, made into rules of this app. Pure.

Celery's fields are those of a crontab but for three things, which are translated here: a range may
run over the end (``fri-mon``), names may be written out, and when both days are restricted, both
must fit, where a crontab is content with either.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError

from jobs.exceptions import ConfigurationError
from jobs.timing import crontab as crontabs
from jobs.timing.crontab import DAY, HOUR, MINUTE, MONTH, WEEKDAY

#: A number, a text such as ``"*/15"`` or ``"mon-fri"``, or several numbers.
Field = int | str | Iterable[int]


@dataclass(frozen=True, slots=True, eq=False)
class Crontab:
    """A rule in the form that schedules keep."""

    text: str
    #: Empty: the project's ``TIME_ZONE``.
    timezone: str = ""

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crontab) and (other.text, other.timezone) == (
            self.text,
            self.timezone,
        )

    def __hash__(self) -> int:
        return hash((self.text, self.timezone))


class crontab(Crontab):
    """The rule that Celery's ``crontab`` makes of these arguments; Sunday is 0."""

    __slots__ = ()

    def __init__(
        self,
        minute: Field = "*",
        hour: Field = "*",
        day_of_week: Field = "*",
        day_of_month: Field = "*",
        month_of_year: Field = "*",
        *,
        timezone: str = "",
    ) -> None:
        """Raises `ConfigurationError` for a field that can't be read, and for days of week and
        month that no crontab can combine as Celery does."""
        week = _read("day_of_week", day_of_week, WEEKDAY)
        month = _read("day_of_month", day_of_month, DAY)
        days, weekdays = month.text, week.text
        # Where one of the two begins with a star, both must fit in a crontab as well.
        if not days.startswith("*") and not weekdays.startswith("*"):
            weeks = sorted({(day - 1) // 7 + 1 for day in month.values})
            if month.values != {day for n in weeks for day in range(7 * n - 6, min(7 * n, 31) + 1)}:
                raise ConfigurationError(
                    f"crontab(day_of_month={days!r}, day_of_week={weekdays!r}): Celery runs on "
                    "days that are both, a crontab on days that are either. Only whole weeks of a "
                    "month can be combined with days of the week ('1-7' with 'mon' is the first "
                    "Monday). Give one of the two and let the task look at the other."
                )
            ordered = sorted(week.values)
            days, weekdays = "*", ",".join(f"{day}#{n}" for n in weeks for day in ordered)
        minutes, hours = _read("minute", minute, MINUTE), _read("hour", hour, HOUR)
        months = _read("month_of_year", month_of_year, MONTH)
        super().__init__(f"{minutes.text} {hours.text} {days} {months.text} {weekdays}", timezone)

    @classmethod
    def from_string(cls, text: str, *, timezone: str = "") -> crontab:
        """The rule of the five fields of a crontab, read as Celery reads them: Sunday is 0, and a
        day must fit both fields for days. Raises `ConfigurationError`."""
        fields = text.split()
        if len(fields) != 5:
            raise ConfigurationError(
                f"crontab.from_string({text!r}): a crontab has five fields: minute, hour, day of "
                "the month, month and day of the week."
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, timezone=timezone)

    def __reduce__(self) -> tuple[type[Crontab], tuple[str, str]]:
        return Crontab, (self.text, self.timezone)


def schedule(run_every: float | dt.timedelta, relative: bool = False) -> dt.timedelta:
    """The interval of Celery's ``schedule``: seconds or a timedelta.

    Raises `ConfigurationError` for what is no interval, and for ``relative``, since due times count
    from the ``start_at`` of the schedule's row.
    """
    if relative:
        raise ConfigurationError(
            "schedule(relative=True) can't be followed here: due times count from start_at of the "
            "schedule's row. Write a crontab for due times on the clock."
        )
    if isinstance(run_every, dt.timedelta):
        return run_every
    if isinstance(run_every, bool) or not isinstance(run_every, int | float):
        raise ConfigurationError(f"schedule({run_every!r}): write seconds or a timedelta.")
    return dt.timedelta(seconds=run_every)


def of_celery(rule: Any) -> Any:
    """The rule that an object of ``celery.schedules`` stands for; as it is, if none is known.

    Raises `ConfigurationError` for one that can't be followed here.
    """
    if type(rule).__name__ == "crontab":
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        return crontab(*(getattr(rule, f"_orig_{name}") for name in fields))
    if type(rule).__name__ == "schedule":
        return schedule(rule.run_every, rule.relative)
    return rule


def _read(name: str, given: Field, kind: crontabs.Kind) -> crontabs.Field:
    """One argument as a field of a crontab."""
    try:
        if isinstance(given, str):
            given = given.replace(" ", "")
            return _read_text(given.lower(), kind)
        values = frozenset([given] if isinstance(given, int) else given)
        if isinstance(given, bool) or not values:
            raise ValueError(given)
        if not all(isinstance(n, int) and kind.first <= n <= kind.last for n in values):
            raise ValueError(given)
        return _field(values, kind)
    except (TypeError, ValueError, ValidationError):
        names = f", {kind.names[0]} to {kind.names[-1]}" if kind.names else ""
        raise ConfigurationError(
            f"crontab({name}={given!r}) can't be read: use {kind.first} to {kind.last}{names}, "
            "'*', ranges ('1-5'), lists ('1,3') and steps ('*/2', '1-5/2')."
        ) from None


#: One element of a list, with the words in it. Unlike in a crontab, a step needs a range.
_PART = re.compile(r"(?:\*|(\w+)-(\w+))(?:/\d+)?|(\w+)")


def _read_text(text: str, kind: crontabs.Kind) -> crontabs.Field:
    """As it is written, where a crontab means the same by that."""
    short = re.sub(r"[a-z]\w*", lambda word: word[0][:3], text)
    field = crontabs.read(short, kind)
    kept = text == short
    for part, span in zip(short.split(","), field.parts, strict=True):
        found = _PART.fullmatch(part)
        for word in filter(None, found.groups()) if found else ("",):
            # Neither 7 for Sunday, nor "L" and "mon#1", which only crontabs have.
            if word not in kind.names and not (word.isdecimal() and int(word) <= kind.last):
                raise ValueError(part)
        kept = kept and ("-" not in part or span.first < span.last)
    values = field.values
    return field if kept and len(values) < _size(kind) else _field(values, kind)


def _field(values: frozenset[int], kind: crontabs.Kind) -> crontabs.Field:
    """All values as a star, others as numbers and ranges: ``{1, 2, 3, 7}`` as ``1-3,7``."""
    if len(values) == _size(kind):
        return crontabs.read("*", kind)
    spans: list[list[int]] = []
    for value in sorted(values):
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    text = ",".join(f"{a:d}" if a == b else f"{a:d}-{b:d}" for a, b in spans)
    return crontabs.read(text, kind)


def _size(kind: crontabs.Kind) -> int:
    return kind.last - kind.first + 1
