"""Time limits that an operator sets in place of those in the code. They are kept on the broker, so
they hold for every worker, also for one that starts later."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
from collections.abc import Mapping
from typing import NamedTuple

from jobs import broker, registry
from jobs.conf.values import check_time_limit
from jobs.control.workers import read
from jobs.timing import clock

log = logging.getLogger("jobs.control")

#: Among the broker's overrides: no task has a name that begins so.
_FIELD = "\0time "


class TimeLimitOverride(NamedTuple):
    """Time limits that replace those in the code."""

    task: str
    #: Seconds; None: no limit.
    soft: float | None
    hard: float | None
    by: str
    at: dt.datetime

    def __str__(self) -> str:
        soft, hard = ("none" if one is None else f"{one:g} s" for one in (self.soft, self.hard))
        return f"soft {soft}, hard {hard}"


def time_limit(
    task: str, *, soft: float | None = None, hard: float | None = None, by: str = ""
) -> None:
    """Replace a task's time limits in the code by these, in the whole fleet, for calls that start
    later, until this is called again. Workers look when they claim, every three seconds at most.
    Limits that are given at a call still come first.

    ``soft``, ``hard``: seconds; one of them alone is the only limit, except for the worker's own.
    Neither: back to the limits in the code. ``by``: who sets them, for others to see. Raises
    `UnknownTask`, and `TypeError` or `ValueError` for wrong limits.
    """
    if soft is None and hard is None:
        if broker.get().set_override(_FIELD + task, None):
            log.warning("task %s has the time limits of its code again", task)
        else:  # only now: a task that the code no longer has may still have limits
            registry.find(task)
        return
    registry.find(task)
    check_time_limit("soft", soft)
    check_time_limit("hard", hard)
    said = TimeLimitOverride(task, soft, hard, by, clock.now())
    text = {"soft": soft, "hard": hard, "by": by, "at": said.at.isoformat()}
    broker.get().set_override(_FIELD + task, json.dumps(text).encode())
    log.warning("task %s has the time limits %s, set by %s", task, said, by or "somebody")


def time_limits() -> dict[str, TimeLimitOverride]:
    """Task → the limits set by `time_limit`. Those that another version has set and that can't be
    read are left out."""
    return read_time_limits(broker.get().overrides())


def read_time_limits(texts: Mapping[str, bytes]) -> dict[str, TimeLimitOverride]:
    """The time limits among all overrides."""
    found = {}
    for field, text in sorted(texts.items()):
        if not field.startswith(_FIELD):
            continue
        task = field.removeprefix(_FIELD)
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            said = read(text)
            at = dt.datetime.fromisoformat(said["at"])
            check_time_limit("soft", said["soft"])
            check_time_limit("hard", said["hard"])
            found[task] = TimeLimitOverride(task, said["soft"], said["hard"], str(said["by"]), at)
    return found
