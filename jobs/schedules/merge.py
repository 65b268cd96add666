"""Merge what code declares of a schedule, what it declared before, and what the row says. Pure.

Values are compared in the plain form in which ``Schedule.declared`` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.models import Schedule

Plain = Mapping[str, Any]

#: Fields that are merged together: an interval from the code and a crontab from the admin would
#: be no rule.
UNITS: tuple[tuple[str, ...], ...] = (
    ("task",),
    ("args", "kwargs"),
    ("crontab", "interval", "at", "timezone"),
    ("queue", "exchange", "routing_key"),
    ("priority",),
    ("expires", "expires_from"),
    ("headers",),
    ("options",),
    ("description",),
    ("enabled",),
    ("misfire", "misfire_window"),
    ("overlap",),
    ("jitter",),
)
FIELDS = tuple(name for unit in UNITS for name in unit)


def plain(schedule: Schedule) -> dict[str, Any]:
    """The fields that code declares, as JSON has them."""
    found = {}
    for name in FIELDS:
        value = getattr(schedule, name)
        if not (value is None or isinstance(value, bool | int | str | list | dict)):
            value = _field(name).value_to_string(schedule)
        found[name] = value
    return found


def _field(name: str) -> Any:
    return Schedule._meta.get_field(name)


def restored(values: Plain) -> dict[str, Any]:
    """Plain values as a row has them."""
    return {name: _field(name).to_python(values[name]) for name in values}


def merged(stored: Plain, former: Plain, new: Plain) -> dict[str, Any]:
    """The fields to change, with their new values: those that still have what code declared
    before."""
    changes: dict[str, Any] = {}
    for unit in UNITS:
        # A field that isn't in `former` is newer than the row.
        if all(name not in former or stored[name] == former[name] for name in unit):
            changes |= {name: new[name] for name in unit if stored[name] != new[name]}
    return changes


def edited(schedule: Schedule) -> list[str]:
    """Fields that differ from what code declares; none for a schedule that code doesn't declare."""
    stored, declared = plain(schedule), schedule.declared or {}
    return [name for name in FIELDS if name in declared and stored[name] != declared[name]]
