"""How calls of a task keep others of the same key from being sent: as a value. Pure."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, Literal, NamedTuple

Until = Literal["until_start", "until_end"]
OnConflict = Literal["drop", "replace", "raise"]

_UNTIL = ("until_start", "until_end")
_ON_CONFLICT = ("drop", "replace", "raise")

#: Seconds beyond its due time for which a call that never ends keeps others away.
_FORGOTTEN = 86_400.0


class Uniqueness(NamedTuple):
    """What ``@task(unique=…)`` and its kin come to."""

    #: "": for a window, whatever becomes of the call.
    until: Literal["until_start", "until_end", ""]
    #: Seconds of the window.
    window: float = 0.0
    on_conflict: OnConflict = "drop"
    #: Seconds without another call after which the last one is run.
    quiet: float = 0.0

    @property
    def replaces(self) -> bool:
        return self.on_conflict == "replace"

    def seconds(self, eta: dt.datetime | None, now: float) -> float:
        """For how long a call that may start at ``eta`` keeps others away at most. ``now``: Unix
        seconds."""
        if self.window:
            return self.window
        return _FORGOTTEN + (max(0.0, eta.timestamp() - now) if eta else 0.0)


def uniqueness(
    unique: Any, on_conflict: Any = "drop", debounce: Any = None, throttle: Any = None
) -> Uniqueness | None:
    """None: calls are not unique. Raises `TypeError` or `ValueError`."""
    given = {"unique": unique, "debounce": debounce, "throttle": throttle}
    named = [name for name, value in given.items() if value is not None]
    if on_conflict not in _ON_CONFLICT:
        raise ValueError(f"on_conflict must be 'drop', 'replace' or 'raise', not {on_conflict!r}")
    if not named:
        if on_conflict != "drop":
            raise ValueError("on_conflict is for a task with unique=")
        return None
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} are given; give one of them")
    if debounce is not None or throttle is not None:
        if on_conflict != "drop":
            raise ValueError(f"{named[0]} says itself which call wins; leave out on_conflict")
        if debounce is not None:
            return Uniqueness("until_start", 0.0, "replace", _span("debounce", debounce))
        return Uniqueness("", _span("throttle", throttle))
    if unique in _UNTIL:
        if on_conflict == "replace" and unique == "until_end":
            raise ValueError(
                "on_conflict='replace' needs unique='until_start': what runs can't be replaced"
            )
        return Uniqueness(unique, 0.0, on_conflict)
    if isinstance(unique, str):
        raise ValueError(
            f"unique must be 'until_start', 'until_end', seconds or a timedelta, not {unique!r}"
        )
    if on_conflict == "replace":
        raise ValueError("on_conflict='replace' needs unique='until_start'; see debounce, too")
    return Uniqueness("", _span("unique", unique), on_conflict)


def _span(name: str, value: Any) -> float:
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{name} must be seconds or a timedelta, not {value!r}")
    if value < 0.001:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    return float(value)
