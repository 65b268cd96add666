"""A schedule's rule in words."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jobs.admin.schedules import crontab, moments
from jobs.models import Schedule

#: Seconds → name, the largest first.
UNITS = {
    604_800: gettext_lazy("weeks"),
    86_400: gettext_lazy("days"),
    3_600: gettext_lazy("hours"),
    60: gettext_lazy("minutes"),
    1: gettext_lazy("seconds"),
}


def in_words(schedule: Schedule) -> str:
    """``every 5 minutes``, ``Monday to Friday at 06:30``; empty when there is no rule."""
    if schedule.interval is not None:
        return _interval_in_words(schedule.interval)
    if schedule.at is not None:
        return _("once, %(at)s") % {"at": moments.in_zone(schedule.at, schedule.timezone)}
    return crontab.in_words(schedule.crontab) if schedule.crontab else ""


def _interval_in_words(interval: dt.timedelta) -> str:
    number, unit = split(interval)
    if unit == 604_800:
        text = ngettext("every week", "every %(n)s weeks", round(number))
    elif unit == 86_400:
        text = ngettext("every day", "every %(n)s days", round(number))
    elif unit == 3_600:
        text = ngettext("every hour", "every %(n)s hours", round(number))
    elif unit == 60:
        text = ngettext("every minute", "every %(n)s minutes", round(number))
    else:
        text = ngettext("every second", "every %(n)s seconds", 1 if number == 1 else 2)
    return text % {"n": f"{number:f}"}


def split(interval: dt.timedelta) -> tuple[Decimal, int]:
    """Number and unit (in seconds) of an interval, in the largest unit that gives a whole number;
    seconds with decimals otherwise."""
    micros = interval // dt.timedelta(microseconds=1)
    for unit in UNITS:
        if micros and micros % (unit * 1_000_000) == 0:
            return Decimal(micros // (unit * 1_000_000)), unit
    return (Decimal(micros) / 1_000_000).normalize(), 1
