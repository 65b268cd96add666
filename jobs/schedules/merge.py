"""What code says of a schedule, what it said before, and what the row says: into one. Pure.

Values are compared in the plain form in which ``Schedule.declared`` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.models import Schedule

Plain = Mapping[str, Any]

#: What is edited together stays together: a rule whose interval comes from the code and whose
#: crontab comes from the admin would be none.
UNITS: tuple[tuple[str, ...], ...] = (
    ("task",),
    ("args", "kwargs"),
    ("crontab", "interval", "at", "timezone"),
    ("queue", "exchange", "routing_key"),
    ("priority",),
    ("expires", "expires_from"),
    ("headers",),
    ("description",),
    ("enabled",),
    ("misfire", "misfire_window"),
    ("overlap",),
    ("jitter",),
)
FIELDS = tuple(name for unit in UNITS for name in unit)


def plain(schedule: Schedule) -> dict[str, Any]:
    """The fields that code declares, as JSON has them."""
    return {name: _plain(schedule, name) for name in FIELDS}


def _plain(schedule: Schedule, name: str) -> Any:
    value = getattr(schedule, name)
    if value is None or isinstance(value, bool | int | str | list | dict):
        return value
    return _field(name).value_to_string(schedule)


def _field(name: str) -> Any:
    return Schedule._meta.get_field(name)


def restored(values: Plain) -> dict[str, Any]:
    """Plain values as the row's fields have them."""
    return {name: _field(name).to_python(values[name]) for name in values}


def merged(stored: Plain, former: Plain, new: Plain) -> dict[str, Any]:
    """The fields that change, with their new values: those that still say what code said before."""
    changes: dict[str, Any] = {}
    for unit in UNITS:
        # What code had no word for when the row was written.
        if all(name not in former or stored[name] == former[name] for name in unit):
            changes |= {name: new[name] for name in unit if stored[name] != new[name]}
    return changes


def edited(schedule: Schedule) -> list[str]:
    """Fields that don't say what code declares; none for a schedule that code doesn't declare."""
    stored, declared = plain(schedule), schedule.declared or {}
    return [name for name in FIELDS if name in declared and stored[name] != declared[name]]
