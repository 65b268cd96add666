"""What code writes to declare a schedule. Pure: `jobs.schedules` makes rows of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.conf.values import (
    check_place,
    check_priority,
    check_text,
    place_name,
    seconds_ahead,
)
from jobs.exceptions import ConfigurationError, shown
from jobs.timing.celery import Crontab, of_celery

#: Seconds or a span, `jobs.crontab`, or the text of a crontab.
Rule = float | dt.timedelta | Crontab | str
Seconds = float | dt.timedelta


@dataclass(frozen=True, slots=True)
class Periodic:
    """A rule, what is sent by it, and everything else that a schedule has."""

    schedule: Rule
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: Default: the task's.
    name: str = ""
    #: Default: the task's.
    queue: str = ""
    #: Beside a queue, they only go along in ``delivery_info``; without one, they lead to queues.
    exchange: str = ""
    routing_key: str = ""
    #: 0 (first) to 9; None: the task's.
    priority: int | None = None
    #: Seconds (or a timedelta) after beat sends a run during which it may start.
    expires: Seconds | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    #: Further options of ``apply_async``.
    options: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    enabled: bool = True
    #: "skip", "once" or "all": what to do about due times that passed while no beat ran.
    misfire: str = "once"
    #: With "all": how old, in seconds or as a timedelta, a missed due time may be.
    misfire_window: Seconds = 86_400.0
    #: "allow", "skip" or "queue": what to do at a due time when the last run has not ended.
    overlap: str = "allow"
    #: Seconds (or a timedelta) over which runs are spread; None: each at its due time.
    jitter: Seconds | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", read_rule(self.schedule))
        for name in ("queue", "exchange", "routing_key"):
            object.__setattr__(self, name, place_name(getattr(self, name)))
            check_place(name, getattr(self, name))
        for name in ("expires", "misfire_window", "jitter"):
            value = getattr(self, name)
            if value is not None:
                seconds_ahead(name, value)
        for name in ("name", "queue"):
            if getattr(self, name) != "":
                check_text(name, getattr(self, name))
        if not isinstance(self.description, str):
            raise TypeError(f"description must be text, not {self.description!r}")
        check_priority(self.priority)
        if isinstance(self.args, str) or not isinstance(self.args, Sequence):
            raise TypeError(f"args must be a tuple or a list, not {self.args!r}")
        for name in ("kwargs", "headers", "options"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} must be a dict, not {getattr(self, name)!r}")
            for key in getattr(self, name):
                if not isinstance(key, str):
                    raise TypeError(f"{name} must have names that are text, not {shown(key)}")


def read_rule(rule: Any) -> Rule:
    """The rule; of a ``crontab`` or a ``schedule`` of Celery's, what these mean here.

    Raises `TypeError` for what can't be a rule, and `ValueError` for a rule of Celery's that has no
    equal.
    """
    if type(rule).__module__ == "celery.schedules":
        try:
            rule = of_celery(rule)
        except ConfigurationError as error:
            raise ValueError(str(error).rstrip(".")) from None
    if isinstance(rule, int | float | dt.timedelta):
        if not isinstance(rule, bool) and rule == rule:  # not NaN
            return rule
    elif isinstance(rule, Crontab | str) and rule:
        return rule
    told = f"schedule must be seconds, a timedelta or crontab(…), not {rule!r}"
    if type(rule).__name__ == "solar":
        told += "; there are no schedules by the sun"
    raise TypeError(told)


def span(value: Seconds) -> dt.timedelta:
    """Raises `ValueError` for a number that is no span of time."""
    if isinstance(value, dt.timedelta):
        return value
    try:
        return dt.timedelta(seconds=value)
    except OverflowError:
        raise ValueError(f"{value!r} seconds are longer than the calendar") from None
