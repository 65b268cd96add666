"""Moments that are always aware, also with ``USE_TZ = False``, when Django's own are naive; and the
pauses between tries.
"""

from __future__ import annotations

import datetime as dt
from typing import overload

from django.utils import timezone


def now() -> dt.datetime:
    """In UTC."""
    return dt.datetime.now(dt.UTC)


@overload
def aware(moment: dt.datetime) -> dt.datetime: ...
@overload
def aware(moment: None) -> None: ...
def aware(moment: dt.datetime | None) -> dt.datetime | None:
    """The moment with a time zone: a naive one is read by the clocks of ``TIME_ZONE``."""
    if moment is None or timezone.is_aware(moment):
        return moment
    return timezone.make_aware(moment, timezone.get_default_timezone())


def growing_pause(failures: int, shortest: float, longest: float) -> float:
    """Seconds to wait after another failure, which came after so many others in a row: twice as
    long each time."""
    # The exponent is limited as well: an outage of hours takes thousands of tries, and 2 to the
    # power of that is too large to compute.
    return min(longest, shortest * 2.0 ** min(failures, 64))
