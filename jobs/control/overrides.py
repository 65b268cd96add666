"""Rates and time limits that an operator sets in place of those in the code. They are kept on the
broker, so they hold for every worker, also for one that starts later."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from jobs import (
    broker,
    conf,
    message,
    registry,
)
from jobs.broker import limiting
from jobs.broker.base import PARKED, Waiting
from jobs.broker.limiting import Rate
from jobs.conf.values import check_time_limit
from jobs.control.workers import read
from jobs.exceptions import MessageError
from jobs.timing import clock

log = logging.getLogger("jobs.control")

#: Given instead of a rate: the task has no limit, whatever the code says.
UNLIMITED = "unlimited"

#: What time limits have before the task's name, among the broker's overrides. No task has a name
#: that begins so.
_TIME = "\0time "

_Override = TypeVar("_Override", "RateOverride", "TimeLimitOverride")


class RateOverride(NamedTuple):
    """A rate that replaces the one in the code."""

    task: str
    #: As the operator wrote it, or `UNLIMITED`.
    rate: str | float
    burst: int | None
    by: str
    at: dt.datetime

    def parsed(self) -> Rate | None:
        """None: no limit."""
        return None if self.rate == UNLIMITED else limiting.parse(self.rate, self.burst)

    def __str__(self) -> str:
        """As the operator wrote it."""
        return str(self.rate) if self.burst is None else f"{self.rate}, burst {self.burst}"


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


def rate_limit(
    task: str, rate: str | float | None, *, burst: int | None = None, by: str = ""
) -> None:
    """Replace a task's rate in the code by another one, in the whole fleet, until this is called
    again. Workers look when they claim, every three seconds at most; an idle one claims every
    JOBS["POLL_SECONDS"].

    ``rate``: as for a task; "unlimited": no limit; None or "": back to the rate in the code.
    ``burst``: as for a task; the code's burst doesn't apply. ``by``: who sets it, for others to
    see. Celery's workers know nothing of it. Raises `UnknownTask`, and `TypeError` or `ValueError`
    for a wrong rate.
    """
    if rate is None or rate == "":
        if burst is not None:
            raise ValueError("burst is for a rate, and there is none: the code's holds again.")
        _reset(task, "rate", field=task)
        return
    registry.find(task)
    rate = rate.strip() if isinstance(rate, str) else rate
    if rate == UNLIMITED and burst is not None:
        raise ValueError(f"burst is for a rate, and {UNLIMITED!r} is none.")
    said = RateOverride(task, rate, burst, by, clock.now())
    try:
        said.parsed()
    except ValueError as error:
        # Leaving the rate out means another thing here than in code.
        wrong = str(error).removesuffix("; None is no limit")
        near = conf.nearest(str(rate), [UNLIMITED])
        raise ValueError(
            f"Task {task!r}: {wrong}.{near} {UNLIMITED!r} is no limit, and '' goes back to what "
            "the code says."
        ) from None
    _set(said, "rate", field=task)


def time_limit(
    task: str, *, soft: float | None = None, hard: float | None = None, by: str = ""
) -> None:
    """Replace a task's time limits in the code by these, in the whole fleet, for calls that start
    later, until this is called again. Workers look when they claim, every three seconds at most.
    Limits that are given at a call still come first.

    ``soft``, ``hard``: seconds; one of them alone is the only limit, except for the worker's own.
    Neither: back to the limits in the code. ``by``: who sets them, for others to see. Celery's
    workers know nothing of them. Raises `UnknownTask`, and `TypeError` or `ValueError` for wrong
    limits.
    """
    if soft is None and hard is None:
        _reset(task, "time limits", field=f"{_TIME}{task}")
        return
    registry.find(task)
    check_time_limit("soft", soft)
    check_time_limit("hard", hard)
    if soft is not None and hard is not None and soft >= hard:
        raise ValueError(f"The soft limit, {soft:g} seconds, must be shorter than the hard one.")
    said = TimeLimitOverride(task, soft, hard, by, clock.now())
    _set(said, "time limits", field=f"{_TIME}{task}")


def _set(said: RateOverride | TimeLimitOverride, what: str, *, field: str) -> None:
    values = {**said._asdict(), "at": said.at.isoformat()}
    del values["task"]
    broker.get().set_override(field, json.dumps(values).encode())
    log.warning("task %s has the %s %s, set by %s", said.task, what, said, said.by or "somebody")


def _reset(task: str, what: str, *, field: str) -> None:
    if broker.get().set_override(field, None):
        log.warning("task %s has the %s of its code again", task, what)
    else:  # only now: a task that the code no longer has may still have an override
        registry.find(task)


def rate_limits() -> dict[str, RateOverride]:
    """Task → the rate set by `rate_limit`. One that another version has set and that can't be read
    is left out."""
    return read_rates(broker.get().overrides())


def time_limits() -> dict[str, TimeLimitOverride]:
    """Task → the limits set by `time_limit`. Those that another version has set and that can't be
    read are left out."""
    return read_time_limits(broker.get().overrides())


def read_rates(texts: Mapping[str, bytes]) -> dict[str, RateOverride]:
    """The rates among all overrides."""
    return _read(texts, "", _rate_of)


def read_time_limits(texts: Mapping[str, bytes]) -> dict[str, TimeLimitOverride]:
    """The time limits among all overrides."""
    return _read(texts, _TIME, _time_limits_of)


def _read(
    texts: Mapping[str, bytes], before: str, made: Callable[[str, Any, dt.datetime], _Override]
) -> dict[str, _Override]:
    """``before``: what the fields have before the task's name."""
    found = {}
    for field, text in sorted(texts.items()):
        if not field.startswith(before):
            continue
        task = field.removeprefix(before)
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            said = read(text)
            found[task] = made(task, said, dt.datetime.fromisoformat(said["at"]))
    return found


def _rate_of(task: str, said: Any, at: dt.datetime) -> RateOverride:
    override = RateOverride(task, said["rate"], said["burst"], str(said["by"]), at)
    override.parsed()
    return override


def _time_limits_of(task: str, said: Any, at: dt.datetime) -> TimeLimitOverride:
    check_time_limit("soft", said["soft"])
    check_time_limit("hard", said["hard"])
    return TimeLimitOverride(task, said["soft"], said["hard"], str(said["by"]), at)


def ask_again(task: str) -> int:
    """Let a task's calls that wait for a permit ask again now, instead of at the times reserved for
    them under a slower rate. How many calls. Raises `UnknownTask`.

    Workers must know the new rate by then, or the calls wait as before.
    """
    registry.find(task)
    return sum(
        # All found before any is moved, which would shift the pages.
        broker.get().hasten(queue, found.raw, found.priority)
        for queue in conf.get().queues
        for found in list(_waiting(queue, task))
    )


def _waiting(queue: str, task: str) -> Iterator[Waiting]:
    """Messages of a task that wait for a permit."""
    for found in broker.get().browse(queue, due=True):
        if found.due is not None and found.due >= PARKED:
            return  # the rest waits for its task to be resumed
        try:
            # The worker that claims it checks the signature.
            sent = message.decode(found.raw, queue, trusted=True)
        except MessageError:
            continue
        if sent.task == task and sent.marks.permit > 0:
            yield found
