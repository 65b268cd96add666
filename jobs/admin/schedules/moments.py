"""Moments on the clocks of a schedule's time zone."""

from __future__ import annotations

import datetime as dt
import zoneinfo

from django.utils import timezone
from django.utils.formats import date_format

from jobs.admin import words


def zone_of(name: str) -> dt.tzinfo:
    """The zone of this name, or the reader's where there is none such."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return timezone.get_current_timezone()


def local(at: dt.datetime, zone: str) -> str:
    with timezone.override(zone_of(zone)):
        return words.moment(at)


def in_zone(at: dt.datetime, zone: str) -> str:
    """With the zone's name where it isn't the reader's."""
    known = str(zone_of(zone)) == zone and zone != timezone.get_current_timezone_name()
    return f"{local(at, zone)} ({zone})" if known else local(at, zone)


def with_weekday(at: dt.datetime, zone: str) -> str:
    day = date_format(at.astimezone(zone_of(zone)), "D")
    return f"{day} {local(at, zone)}"
