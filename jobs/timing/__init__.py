"""From a rule and a moment to the next due time. Pure: no database, no clock.

`rule.py` has what a schedule says; `crontab.py` reads a crontab and lists matching readings of a
clock on the wall; `wallclock.py` makes moments of those, above all where clocks change.
"""

from __future__ import annotations

from django.conf import settings

from jobs.timing.rule import MAX_INTERVAL, MIN_INTERVAL, Rule, validate

__all__ = ["MAX_INTERVAL", "MIN_INTERVAL", "Rule", "default_zone", "validate"]


def default_zone() -> str:
    """The zone of a crontab for which none is chosen: the project's ``TIME_ZONE``."""
    return str(settings.TIME_ZONE)
