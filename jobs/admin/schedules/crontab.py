"""A crontab in words, in the reader's language: ``Monday to Friday at 06:30``.

Three phrases are made, of the time, the days and the months, and put together by templates that a
translation may turn around. What has no phrase is said field by field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.utils.dates import MONTHS, WEEKDAYS
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext_lazy

#: Most clock times, and most numbers, that are listed one by one.
_MOST_TIMES, _MOST_NUMBERS = 6, 12

#: As in "the second Friday of the month".
_NTH: dict[int, str | Promise] = {
    1: pgettext_lazy("of the month", "first"),
    2: pgettext_lazy("of the month", "second"),
    3: pgettext_lazy("of the month", "third"),
    4: pgettext_lazy("of the month", "fourth"),
    5: pgettext_lazy("of the month", "fifth"),
}

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class _Uncommon(ValueError):
    """There is no phrase for this."""


class _Part(NamedTuple):
    """One element of a field's list: each ``step``-th from first to last."""

    first: int
    last: int
    step: int = 1

    @property
    def values(self) -> range:
        return range(self.first, self.last + 1, self.step)


class _Field(NamedTuple):
    text: str
    lowest: int
    highest: int
    names: Sequence[str] = ()

    @property
    def any(self) -> bool:
        return self.text in ("*", "?", "*/1")

    @property
    def every(self) -> int:
        """n of ``*/n`` where that is really every n, also across the end; 0 otherwise."""
        found = re.fullmatch(r"\*/(\d+)", self.text)
        step = int(found[1]) if found else 0
        return step if step and (self.highest - self.lowest + 1) % step == 0 else 0

    @property
    def parts(self) -> list[_Part]:
        return [self._part(text) for text in self.text.split(",")]

    @property
    def values(self) -> list[int]:
        return sorted({value for part in self.parts for value in part.values})

    @property
    def only(self) -> int:
        """The one value that it has."""
        values = self.values
        if len(values) != 1:
            raise _Uncommon
        return values[0]

    def _part(self, text: str) -> _Part:
        found = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", text)
        if found is None:
            raise _Uncommon
        first, last, step = found.groups()
        if first == "*":
            return _Part(self.lowest, self.highest, int(step or 1))
        start = self._number(first)
        end = self._number(last) if last else self.highest if step else start
        if end < start or not int(step or 1):
            raise _Uncommon
        return _Part(start, end, int(step or 1))

    def _number(self, text: str) -> int:
        if text in self.names:
            return self.names.index(text) + (1 if self.names is _MONTH_NAMES else 0)
        if not text.isdecimal():
            raise _Uncommon
        return int(text)


class _Fields(NamedTuple):
    minute: _Field
    hour: _Field
    day: _Field
    month: _Field
    weekday: _Field
    #: Written first; 0 where there are five fields.
    second: _Field

    @classmethod
    def of(cls, crontab: str) -> _Fields | None:
        texts = crontab.lower().split()
        if len(texts) not in (5, 6):
            return None
        second, minute, hour, day, month, weekday = ["0", *texts][-6:]
        return cls(
            _Field(minute, 0, 59),
            _Field(hour, 0, 23),
            _Field(day, 1, 31),
            _Field(month, 1, 12, _MONTH_NAMES),
            _Field(weekday, 0, 6, _DAY_NAMES),
            _Field(second, 0, 59),
        )


def in_words(crontab: str) -> str:
    """What it says; the text itself when it has not five or six fields."""
    fields = _Fields.of(crontab)
    if fields is None:
        return crontab
    try:
        return _sentence(fields)
    except _Uncommon:
        return _field_by_field(fields)


def _sentence(fields: _Fields) -> str:
    days = _days(fields)
    times = _clock_times(fields)
    if times:
        said = _("%(days)s at %(times)s") % {"days": days or _("daily"), "times": times}
    else:
        said = _frequency(fields)
        if days:
            said = _("%(times)s, %(days)s") % {"times": said, "days": days}
    if not fields.month.any:
        said = _("%(what)s, in %(months)s") % {"what": said, "months": _months(fields.month)}
    return said


# ----------------------------------------------------------------------------------- time


def _clock_times(fields: _Fields) -> str:
    """``06:30 and 18:30``, where there are few; empty otherwise."""
    if any(field.any or field.every for field in fields[:2]) or fields.second.any:
        return ""
    hours, minutes, seconds = (f.values for f in (fields.hour, fields.minute, fields.second))
    if len(hours) * len(minutes) * len(seconds) > _MOST_TIMES:
        return ""
    form = "{:02}:{:02}" if seconds == [0] else "{:02}:{:02}:{:02}"
    return _list(form.format(h, m, s) for h in hours for m in minutes for s in seconds)


def _frequency(fields: _Fields) -> str:
    second, minute, hour = fields.second, fields.minute, fields.hour
    if second.text != "0":
        return _by_seconds(fields)
    if hour.any:
        return _within_hours(minute)
    if hour.every and not minute.any and not minute.every:
        said = ngettext(
            "every hour at minute %(minute)s", "every %(n)s hours at minute %(minute)s", hour.every
        )
        return said % {"n": hour.every, "minute": minute.only}
    if len(hour.parts) == 1 and hour.parts[0].step == 1:
        return _within_a_range(minute, hour.parts[0])
    said = _("%(what)s in the hours %(hours)s")
    return said % {"what": _within_hours(minute), "hours": _numbers(hour)}


def _by_seconds(fields: _Fields) -> str:
    if not (fields.minute.any and fields.hour.any):
        raise _Uncommon
    second = fields.second
    if second.any:
        return _("every second")
    if second.every:
        return _("every %(n)s seconds") % {"n": second.every}
    count = len(second.values)
    said = ngettext("every minute at second %(n)s", "every minute at seconds %(n)s", count)
    return said % {"n": _numbers(second)}


def _within_hours(minute: _Field) -> str:
    if minute.any:
        return _("every minute")
    if minute.every:
        return _("every %(n)s minutes") % {"n": minute.every}
    count = len(minute.values)
    said = ngettext("hourly at minute %(minute)s", "hourly at minutes %(minute)s", count)
    return said % {"minute": _numbers(minute)}


def _within_a_range(minute: _Field, hours: _Part) -> str:
    if minute.any or minute.every:
        what, first, last = _within_hours(minute), 0, 59
    else:
        what, first = _("hourly"), minute.only
        last = first
    said = _("%(what)s from %(start)s to %(end)s")
    start, end = f"{hours.first:02}:{first:02}", f"{hours.last:02}:{last:02}"
    return said % {"what": what, "start": start, "end": end}


# ----------------------------------------------------------------------------------- days


def _days(fields: _Fields) -> str:
    """Which days; empty for all of them."""
    day, weekday = fields.day, fields.weekday
    if day.any and weekday.any:
        return ""
    if weekday.any:
        return _days_of_month(day)
    if day.any:
        return _weekdays(weekday)
    both = {"days": _days_of_month(day), "weekdays": _weekdays(weekday)}
    # The rule of cron: a star makes it a condition more, rather than days more.
    if day.text.startswith("*") or weekday.text.startswith("*"):
        return _("%(days)s if it is %(weekdays)s") % both
    return _("%(days)s or %(weekdays)s") % both


def _days_of_month(day: _Field) -> str:
    if day.text == "l":
        return _("on the last day of the month")
    numbers = [text for text in day.text.split(",") if text != "l"]
    last = len(numbers) < len(day.text.split(","))
    day = day._replace(text=",".join(numbers))
    if not last and (found := re.fullmatch(r"\*/(\d+)", day.text)):
        return _("every %(n)s days from day 1 of the month") % {"n": found[1]}
    count = len(day.values)
    if last:
        said = ngettext(
            "on day %(days)s and the last day of the month",
            "on days %(days)s and the last day of the month",
            count,
        )
    else:
        said = ngettext("on day %(days)s of the month", "on days %(days)s of the month", count)
    return said % {"days": _numbers(day)}


def _weekdays(field: _Field) -> str:
    return _list(_weekday(text, field) for text in field.text.split(","))


def _weekday(text: str, field: _Field) -> str:
    if found := re.fullmatch(r"(\w+)#([1-5])", text):
        said = {"nth": _NTH[int(found[2])], "day": _day_name(field._number(found[1]))}
        return _("the %(nth)s %(day)s of the month") % said
    if found := re.fullmatch(r"l(\w+)", text):
        return _("the last %(day)s of the month") % {"day": _day_name(field._number(found[1]))}
    part = field._part(text)
    if part.step == 1 and len(part.values) > 2:
        return _range(_day_name(part.first), _day_name(part.last))
    return _list(_day_name(value) for value in part.values)


def _day_name(number: int) -> str:
    return str(WEEKDAYS[(number + 6) % 7])  # here Monday is 0; Sunday is 0 or 7 in a crontab


def _months(field: _Field) -> str:
    return _list(_month_phrases(field))


def _month_phrases(field: _Field) -> Iterable[str]:
    for part in field.parts:
        if not 1 <= part.first <= part.last <= 12:
            raise _Uncommon
        if part.step == 1 and len(part.values) > 2:
            yield _range(str(MONTHS[part.first]), str(MONTHS[part.last]))
        else:
            yield from (str(MONTHS[value]) for value in part.values)


# ---------------------------------------------------------------------------------- lists


def _numbers(field: _Field) -> str:
    phrases: list[str] = []
    for part in field.parts:
        if part.step == 1 and len(part.values) > 2:
            phrases.append(_range(str(part.first), str(part.last)))
        elif len(part.values) > _MOST_NUMBERS:
            raise _Uncommon
        else:
            phrases += [str(value) for value in part.values]
    return _list(phrases)


def _range(first: str, last: str) -> str:
    return _("%(first)s to %(last)s") % {"first": first, "last": last}


def _list(items: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = items
    if not most:
        return last
    # Translators: between the elements of a list, other than the last two.
    return _("%(most)s and %(last)s") % {"most": _(", ").join(most), "last": last}


# ------------------------------------------------------------------------- field by field


def _field_by_field(fields: _Fields) -> str:
    names = (
        (fields.minute, _("minute %(value)s")),
        (fields.hour, _("hour %(value)s")),
        (fields.day, _("day of the month %(value)s")),
        (fields.month, _("month %(value)s")),
        (fields.weekday, _("day of the week %(value)s")),
    )
    said = [text % {"value": field.text} for field, text in names if not field.any]
    if fields.second.any:
        return _("every second of %(fields)s") % {"fields": _list(said)}
    if fields.second.text != "0":
        said.insert(0, _("second %(value)s") % {"value": fields.second.text})
    return _("at %(fields)s") % {"fields": _list(said)}
