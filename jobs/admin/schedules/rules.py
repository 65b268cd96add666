"""A schedule's rule in words, and moments on the clocks of its time zone."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from decimal import Decimal

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jobs.admin import words
from jobs.admin.schedules import crontab
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
    if schedule.interval is None and schedule.at is not None:
        return _("once, %(at)s") % {"at": in_zone(schedule.at, schedule.timezone)}
    if schedule.interval is None:
        return crontab.in_words(schedule.crontab) if schedule.crontab else ""
    number, unit = split(schedule.interval)
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
    """The number and the unit (in seconds) of an interval. The unit is the largest that gives a
    whole number; there are decimals only in seconds."""
    micros = interval // dt.timedelta(microseconds=1)
    for unit in UNITS:
        if micros and micros % (unit * 1_000_000) == 0:
            return Decimal(micros // (unit * 1_000_000)), unit
    return (Decimal(micros) / 1_000_000).normalize(), 1


# -------------------------------------------------------------------------------------- moments


def zone_of(name: str) -> dt.tzinfo:
    """The zone of this name; the reader's own when there is no such zone."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return timezone.get_current_timezone()


def local(at: dt.datetime, zone: str) -> str:
    with timezone.override(zone_of(zone)):
        return words.moment(at)


def in_zone(at: dt.datetime, zone: str) -> str:
    """With the zone's name, unless it is the reader's own zone."""
    known = str(zone_of(zone)) == zone and zone != timezone.get_current_timezone_name()
    return f"{local(at, zone)} ({zone})" if known else local(at, zone)


def with_weekday(at: dt.datetime, zone: str) -> str:
    day = date_format(at.astimezone(zone_of(zone)), "D")
    return f"{day} {local(at, zone)}"
