"""From readings of a clock on the wall to moments. When clocks change, as in Debian's cron:

- At fixed times (``30 2 * * *``), a local time that is skipped in spring counts as the first moment
  after the gap, and one that is repeated in autumn counts once, the first time.
- A star in the second, the minute or the hour (``*/15 * * * *``) follows elapsed time: nothing is
  made up for the gap, and a repeated hour has its runs again.

Crontabs only ever see local times without a zone.
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from jobs.timing.crontab import Crontab

_MINUTE = dt.timedelta(minutes=1)


@functools.lru_cache(maxsize=1024)
def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """Raises `ValidationError` for a name that isn't one of a zone."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationError(
            _("“%(name)s” is not a time zone; write it like “Europe/Berlin”."),
            code="timezone",
            params={"name": name},
        ) from error


def following(crontab: Crontab, zone: zoneinfo.ZoneInfo, after: dt.datetime) -> dt.datetime | None:
    """The first due time later than ``after``, both in UTC, or None when there is none."""
    if crontab.elapsed:
        return _elapsed(crontab, zone, after)
    for local in crontab.times(_naive(after, zone)):
        if not _exists(local, zone):
            local = local.replace(second=0)  # clocks change at whole minutes
            while not _exists(local, zone):
                local += _MINUTE
        due = _utc(local, zone, fold=0)
        if due > after:
            return due
    return None


def _elapsed(crontab: Crontab, zone: zoneinfo.ZoneInfo, after: dt.datetime) -> dt.datetime | None:
    """Moments whose local time matches, whether it comes once, twice, or never."""
    local = _naive(after, zone)
    found = _second_pass(crontab, zone, local) if after.astimezone(zone).fold == 0 else None
    for match in crontab.times(local):
        if _exists(match, zone):
            first, second = _utc(match, zone, fold=0), _utc(match, zone, fold=1)
            # Later on the clock and yet not later: this is the second pass already.
            due = first if first > after else second
            return min(found or due, due)
    return found


def _second_pass(
    crontab: Crontab, zone: zoneinfo.ZoneInfo, local: dt.datetime
) -> dt.datetime | None:
    """In the first pass of a repeated hour: what matches in the second, up to the present time."""
    repeated = _utc(local, zone, fold=1) - _utc(local, zone, fold=0)
    for match in crontab.times(local - repeated) if repeated else ():
        if match > local:
            break
        if _utc(match, zone, fold=1) != _utc(match, zone, fold=0):
            return _utc(match, zone, fold=1)
    return None


def _naive(moment: dt.datetime, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _utc(local: dt.datetime, zone: zoneinfo.ZoneInfo, *, fold: int) -> dt.datetime:
    return local.replace(tzinfo=zone, fold=fold).astimezone(dt.UTC)


def _exists(local: dt.datetime, zone: zoneinfo.ZoneInfo) -> bool:
    return _naive(_utc(local, zone, fold=0), zone) == local
