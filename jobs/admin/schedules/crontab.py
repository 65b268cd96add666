"""A crontab in words, in the reader's language: ``Monday to Friday at 06:30``.

There are three phrases, of the time, the days and the months. Templates put them together, and a
translation may turn these around. A crontab without such phrases is described field by field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

from django.core.exceptions import ValidationError
from django.utils.dates import MONTHS, WEEKDAYS
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext, pgettext_lazy

from jobs.timing.crontab import LAST, Field, Fields, Part, parse

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


class _Uncommon(ValueError):
    """There is no phrase for this."""


def in_words(crontab: str) -> str:
    """The text itself when it doesn't have five or six fields."""
    texts = crontab.lower().split()
    if len(texts) not in (5, 6):
        return crontab
    try:
        fields = parse(crontab).fields
        if any(part.last < part.first for field in fields for part in field.parts):
            raise _Uncommon  # a range over the end
        days, times = _days(fields), _clock_times(fields)
        if times:
            said = _("%(days)s at %(times)s") % {"days": days or _("daily"), "times": times}
        else:
            said = _frequency(fields)
            if days:
                said = _("%(times)s, %(days)s") % {"times": said, "days": days}
        if not fields.month.any:
            months = _listed(fields.month.parts, lambda number: str(MONTHS[number]))
            said = _("%(what)s, in %(months)s") % {"what": said, "months": months}
    except (ValidationError, _Uncommon):
        return _field_by_field(*["0", *texts][-6:]) or crontab
    return said


# ----------------------------------------------------------------------------------- time


def _clock_times(fields: Fields) -> str:
    """``06:30 and 18:30``; empty when there are many."""
    second, minute, hour = fields.second, fields.minute, fields.hour
    if minute.any or minute.every or hour.any or hour.every or second.any:
        return ""
    times = list(product(*(sorted(field.values) for field in (hour, minute, second))))
    if len(times) > _MOST_TIMES:
        return ""
    form = "{:02}:{:02}" if second.values == {0} else "{:02}:{:02}:{:02}"
    return _list(form.format(*time) for time in times)


def _frequency(fields: Fields) -> str:
    """``every 15 minutes from 09:00 to 17:59``"""
    second, minute, hour = fields.second, fields.minute, fields.hour
    if second.text != "0":
        if not (minute.any and hour.any):
            raise _Uncommon
        if second.any:
            return pgettext("crontab", "every second")
        if second.every:
            return _("every %(n)s seconds") % {"n": second.every}
        said = ngettext(
            "every minute at second %(n)s", "every minute at seconds %(n)s", len(second.values)
        )
        return said % {"n": _listed(second.parts)}
    if hour.any:
        return _minutes(minute)
    steady = minute.any or minute.every  # all through the hour
    if hour.every and not steady:
        said = ngettext(
            "every hour at minute %(minute)s", "every %(n)s hours at minute %(minute)s", hour.every
        )
        return said % {"n": hour.every, "minute": _only(minute)}
    if len(hour.parts) > 1 or hour.parts[0].step > 1:
        said = _("%(what)s in the hours %(hours)s")
        return said % {"what": _minutes(minute), "hours": _listed(hour.parts)}
    what = _minutes(minute) if steady else _("hourly")
    first, last = (0, 59) if steady else (_only(minute), _only(minute))
    start, end = f"{hour.parts[0].first:02}:{first:02}", f"{hour.parts[0].last:02}:{last:02}"
    said = _("%(what)s from %(start)s to %(end)s")
    return said % {"what": what, "start": start, "end": end}


def _minutes(minute: Field) -> str:
    if minute.any:
        return pgettext("crontab", "every minute")
    if minute.every:
        return _("every %(n)s minutes") % {"n": minute.every}
    said = ngettext(
        "hourly at minute %(minute)s", "hourly at minutes %(minute)s", len(minute.values)
    )
    return said % {"minute": _listed(minute.parts)}


def _only(field: Field) -> int:
    """The one value that the field has."""
    if len(field.values) > 1:
        raise _Uncommon
    (value,) = field.values
    return value


# ----------------------------------------------------------------------------------- days


def _days(fields: Fields) -> str:
    """Which days; empty for all of them."""
    day, weekday = fields.day, fields.weekday
    days = "" if day.any else _days_of_month(day)
    # Here Monday is 0; in a crontab, Sunday is 0, or 7 at the end of a range.
    weekdays = "" if weekday.any else _listed(weekday.parts, lambda n: str(WEEKDAYS[(n + 6) % 7]))
    if not (days and weekdays):
        return days or weekdays
    both = {"days": days, "weekdays": weekdays}
    # As in cron: when one field begins with a star, a day has to fit both; otherwise either.
    if day.text.startswith("*") or weekday.text.startswith("*"):
        return _("%(days)s if it is %(weekdays)s") % both
    return _("%(days)s or %(weekdays)s") % both


def _days_of_month(day: Field) -> str:
    numbers = [part for part in day.parts if part.first != LAST]
    if not numbers:
        return _("on the last day of the month")
    if day.text == f"*/{numbers[0].step}":
        return _("every %(n)s days from day 1 of the month") % {"n": numbers[0].step}
    if LAST in day.values:
        said = ngettext(
            "on day %(days)s and the last day of the month",
            "on days %(days)s and the last day of the month",
            len(day.values) - 1,
        )
    else:
        said = ngettext(
            "on day %(days)s of the month", "on days %(days)s of the month", len(day.values)
        )
    return said % {"days": _listed(numbers)}


# ---------------------------------------------------------------------------------- lists


def _listed(parts: Iterable[Part], name: Callable[[int], str] = str) -> str:
    """``1, 3 and 5 to 9``, or the same with names."""
    phrases: list[str] = []
    for part in parts:
        values = range(part.first, part.last + 1, part.step)
        if part.nth == LAST:
            phrases.append(_("the last %(day)s of the month") % {"day": name(part.first)})
        elif part.nth:
            said = {"nth": _NTH[part.nth], "day": name(part.first)}
            phrases.append(_("the %(nth)s %(day)s of the month") % said)
        elif part.step == 1 and len(values) > 2:
            said = {"first": name(part.first), "last": name(part.last)}
            phrases.append(_("%(first)s to %(last)s") % said)
        elif len(values) > _MOST_NUMBERS:
            raise _Uncommon
        else:
            phrases += map(name, values)
    return _list(phrases)


def _list(items: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = items
    if not most:
        return last
    # Translators: between the elements of a list, other than the last two.
    return _("%(most)s and %(last)s") % {"most": _(", ").join(most), "last": last}


def _field_by_field(second: str, minute: str, hour: str, day: str, month: str, weekday: str) -> str:
    """``at minute 1-50/3 and hour 2-9``; empty when all are stars."""
    names = (
        (minute, _("minute %(value)s")),
        (hour, _("hour %(value)s")),
        (day, _("day of the month %(value)s")),
        (month, _("month %(value)s")),
        (weekday, _("day of the week %(value)s")),
    )
    stars = ("*", "?", "*/1")
    said = [text % {"value": value} for value, text in names if value not in stars]
    if said and second in stars:
        return _("every second of %(fields)s") % {"fields": _list(said)}
    if second not in ("0", *stars):
        said.insert(0, _("second %(value)s") % {"value": second})
    return _("at %(fields)s") % {"fields": _list(said)} if said else ""
