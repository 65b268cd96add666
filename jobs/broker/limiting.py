"""Rates, slots and locks: the values that cross the broker's contract, and how rates are counted.

A limit has a name and belongs to no queue. A rate grants a permit every ``interval`` seconds, and
keeps up to ``burst`` permits that nobody took. A caller that gets none is given a time at which to
ask again, which is reserved for it. On Redis the script `jobs/broker/lua/permits.lua` does what
`ask` does here.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

#: Seconds for which a slot is held, unless its holder keeps it for longer.
SLOT = 60.0
#: Seconds for which a freed slot is reserved for the holder that has waited longest.
HANDED = 10.0
#: A call that waits for a slot asks again after ASK_AGAIN seconds, in case its wake-up was lost,
#: plus ASK_AGAIN_EACH for each other that waits, so that many cost no more than a few; after
#: ASK_AGAIN_MOST at the latest.
ASK_AGAIN, ASK_AGAIN_EACH, ASK_AGAIN_MOST = 10.0, 0.05, 600.0

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*([smh]))?\s*")

#: The default burst is what the rate grants in so many seconds, so that a worker that is late by
#: less loses no permit.
_LATE = 0.1

#: Passed instead of a reserved time by a caller that was granted a permit and has given it back.
GIVEN_BACK = -1.0


class Rate(NamedTuple):
    """Seconds between two permits, and how many unused ones are kept."""

    interval: float
    burst: int = 1


class Bucket(NamedTuple):
    """The state of one rate, in Unix seconds."""

    #: When the bucket is full again; each permit moves this one interval later.
    granted: float = 0.0
    #: The first time that isn't reserved for anybody.
    reserved: float = 0.0
    #: Interval (seconds) of the rate that was last asked for; 0: a new bucket.
    interval: float = 0.0


class Permit(NamedTuple):
    """The answer to one request for a permit."""

    #: Seconds after which to ask again; 0: the permit is granted.
    wait: float
    #: The same as a time (Unix seconds, the broker's clock), to be passed when asking again.
    at: float = 0.0


class Wish(NamedTuple):
    """A request for permits of one rate."""

    limit: str
    rate: Rate
    #: For each permit the time that is reserved for it (`Permit.at`), `GIVEN_BACK`, or 0.0.
    before: Sequence[float]
    #: No time further ahead than so many seconds is reserved; None: any is.
    within: float | None = None
    #: How many permits were granted and not used; they are given back first.
    unused: int = 0


class Slot(NamedTuple):
    """One of the ``most`` slots of a limit, and who holds it or wants it."""

    limit: str
    most: int
    #: A task's id, or another unique name. A holder has one slot, however often it asks.
    holder: str
    #: The queue on which its message waits for a slot, and its due time (Unix seconds).
    queue: str = ""
    due: float = 0.0


class Take(enum.StrEnum):
    """How a lock is taken."""

    #: Only if nobody else has it.
    FREE = ""
    #: From whoever has it. After its release, the calls that were replaced can still see that, for
    #: as long as the lock would have been kept.
    REPLACE = "replace"
    #: Kept for longer, if the call has it already.
    KEEP = "keep"


class Lock(NamedTuple):
    """The right of one call to be the only one under this name."""

    name: str
    task_id: str
    #: Seconds after which it is free again by itself.
    seconds: float = 0.0
    take: Take = Take.FREE


# ------------------------------------------------------------------------------ rates


def parse(rate: str | float, burst: int | None = None) -> Rate:
    """Read ``"100/s"``, ``"100/m"``, ``"100/h"``, or a number per second.

    ``burst``: how many permits there are at once after a pause; None: what the rate grants in a
    tenth of a second, at least one. Raises `TypeError` or `ValueError`.
    """
    told = f"rate_limit must be like '100/s', '100/m', '100/h' or a number a second, not {rate!r}"
    if isinstance(rate, str):
        found = _WRITTEN.fullmatch(rate)
        if found is None:
            raise ValueError(told)
        per_second = float(found[1]) / _UNITS[found[2] or "s"]
    elif isinstance(rate, int | float) and not isinstance(rate, bool):
        per_second = float(rate)
    else:
        raise TypeError(told)
    if not (math.isfinite(per_second) and per_second > 0):
        raise ValueError(f"{told}; None is no limit")
    if burst is None:
        burst = max(1, round(per_second * _LATE))
    if isinstance(burst, bool) or not isinstance(burst, int):
        raise TypeError(f"burst must be a whole number, not {burst!r}")
    if burst < 1:
        raise ValueError(f"burst must be at least 1, not {burst!r}")
    return Rate(1 / per_second, burst)


def at_rate(bucket: Bucket, rate: Rate, now: float) -> Bucket:
    """The bucket as this rate sees it. If the rate has become faster, what was granted and reserved
    is counted in its shorter intervals; if it has become slower, nothing changes."""
    if rate.interval < bucket.interval:
        times = rate.interval / bucket.interval
        bucket = bucket._replace(
            granted=min(bucket.granted, now + (bucket.granted - now) * times),
            reserved=min(bucket.reserved, now + (bucket.reserved - now) * times),
        )
    return bucket._replace(interval=rate.interval)


def return_permits(bucket: Bucket, rate: Rate, unused: int) -> Bucket:
    """Return permits that were granted and not used."""
    return bucket._replace(granted=bucket.granted - unused * rate.interval)


def ask(
    bucket: Bucket, rate: Rate, before: float, now: float, within: float | None = None
) -> tuple[Bucket, Permit]:
    """Ask for one permit.

    ``before``: the time that is reserved for the caller, `GIVEN_BACK`, or 0.0. ``within``: reserve
    no time for a caller that would have to wait longer than so many seconds.
    """
    ready = bucket.granted - (rate.burst - 1) * rate.interval
    # Callers that wait leave a third of the burst for tasks that start late after their permit, and
    # their first reserved time leaves another third for workers that come late to fetch theirs.
    spare = (rate.burst - 1) / 3 * rate.interval
    if before > 0:
        ready += spare
    # A new caller doesn't overtake those with a reserved time. But it gets a permit that nobody has
    # fetched in its time: they may be behind it in the queue, and the permit would be lost.
    left_over = bucket.granted <= now - rate.interval
    if (before or bucket.reserved <= now or left_over) and ready <= now:
        # Less than an interval late counts as on time, or each delay would cost the next caller its
        # permit. More than an interval early: the rate has changed, and the caller was woken.
        since = now
        if before > 0 and abs(now - before) < rate.interval:
            since = before
        elif bucket.reserved > now and left_over:
            since = now - rate.interval
        return bucket._replace(granted=max(bucket.granted, since) + rate.interval), Permit(0.0)
    at = max(now, bucket.reserved, ready)
    if bucket.reserved <= now:
        at += spare if before > 0 else 2 * spare
    if within is None or at - now <= within:
        bucket = bucket._replace(reserved=at + rate.interval)
    return bucket, Permit(at - now, at)
