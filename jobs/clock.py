"""Moments, always aware: with USE_TZ off as well, when Django's own are naive."""

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
    """A moment with its zone: a naive one is meant by the clocks of the project's ``TIME_ZONE``."""
    if moment is None or timezone.is_aware(moment):
        return moment
    return timezone.make_aware(moment, timezone.get_default_timezone())
