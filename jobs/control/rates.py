"""Rates that an operator has set in place of those in the code. Kept on the broker, so that they
hold for every worker, also for one that starts later."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from typing import NamedTuple

from jobs import (
    broker,
    conf,
    message,
    registry,
)
from jobs.broker import limiting
from jobs.broker.base import PARKED, Waiting
from jobs.broker.limiting import Rate
from jobs.exceptions import MessageError
from jobs.timing import clock

log = logging.getLogger("jobs.control")

#: Instead of a rate: the task has none, whatever the code says.
UNLIMITED = "unlimited"


class RateOverride(NamedTuple):
    """What holds in place of the rate in the code."""

    task: str
    #: As it was said, or `UNLIMITED`.
    rate: str | float
    burst: int | None
    by: str
    at: dt.datetime

    def parsed(self) -> Rate | None:
        """None: no limit."""
        return None if self.rate == UNLIMITED else limiting.parse(self.rate, self.burst)

    def __str__(self) -> str:
        """As it is written where it is set."""
        return str(self.rate) if self.burst is None else f"{self.rate}, burst {self.burst}"


def rate_limit(
    task: str, rate: str | float | None, *, burst: int | None = None, by: str = ""
) -> None:
    """Limit a task's calls by another rate than the code's, in the whole fleet, until it is said
    otherwise. A worker learns it when it claims, three seconds later at most; an idle one claims
    every JOBS["POLL_SECONDS"].

    ``rate``: as of a task; "unlimited": no limit; None or "": what the code says, again.
    ``burst``: as of a task, that of the code doesn't count. ``by``: whose doing it is, for the
    others who look. Raises `UnknownTask`, and `TypeError` or `ValueError` for a rate that can't be.
    """
    if rate is None or rate == "":
        _reset(task, burst)
        return
    registry.find(task)
    rate = rate.strip() if isinstance(rate, str) else rate
    said = RateOverride(task, rate, burst, by, clock.now())
    _check(said)
    text = {"rate": said.rate, "burst": burst, "by": by, "at": said.at.isoformat()}
    broker.get().set_rate(task, json.dumps(text).encode())
    log.warning("task %s has the rate %s, set by %s", task, said, by or "somebody")


def rate_limits() -> dict[str, RateOverride]:
    """Task → what was set with `rate_limit`. What another version has set, and can't be read, is
    left out."""
    found = ((task, _read(task, text)) for task, text in sorted(broker.get().rates().items()))
    return {task: override for task, override in found if override}


def ask_again(task: str) -> int:
    """Have a task's calls that wait for a permit ask for it now, instead of at the times that were
    kept for them under a slower rate. How many calls. Raises `UnknownTask`.

    Workers have to know the new rate by then, or the calls wait as before.
    """
    registry.find(task)
    return sum(
        # All found before any is moved, which would shift the pages.
        broker.get().hasten(queue, found.raw, found.priority)
        for queue in conf.get().queues
        for found in list(_waiting(queue, task))
    )


def _reset(task: str, burst: int | None) -> None:
    if burst is not None:
        raise ValueError("burst is for a rate, and there is none: the code's holds again.")
    # One that the code no longer has may be set still.
    if broker.get().set_rate(task, None):
        log.warning("task %s has the rate of its code again", task)
    else:
        registry.find(task)


def _check(said: RateOverride) -> None:
    """Raise what is wrong with it."""
    if said.rate == UNLIMITED:
        if said.burst is not None:
            raise ValueError(f"burst is for a rate, and {UNLIMITED!r} is none.")
        return
    try:
        said.parsed()
    except ValueError as error:
        # What it is in code means another thing here.
        wrong = str(error).removesuffix("; None is no limit")
        near = conf.nearest(str(said.rate), [UNLIMITED])
        raise ValueError(
            f"Task {said.task!r}: {wrong}.{near} {UNLIMITED!r} is no limit, and '' goes back to "
            "what the code says."
        ) from None


def _read(task: str, text: bytes) -> RateOverride | None:
    try:
        said = json.loads(text)
        at = dt.datetime.fromisoformat(said["at"])
        override = RateOverride(task, said["rate"], said["burst"], said["by"], at)
        override.parsed()
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return override


def _waiting(queue: str, task: str) -> Iterator[Waiting]:
    """Messages of a task that wait for a permit."""
    for found in broker.get().browse(queue, due=True):
        if found.due is not None and found.due >= PARKED:
            return  # the rest waits for its task to be resumed
        try:
            # For a look only; whoever claims it asks who signed it.
            sent = message.decode(found.raw, queue, trusted=True)
        except MessageError:
            continue
        if sent.task == task and sent.permit > 0:
            yield found
