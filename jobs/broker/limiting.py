"""Rates, slots and locks: the values of the contract, and the arithmetic of rates. Pure.

What is limited has a name, and belongs to no queue.

A rate gives a permit every ``interval`` seconds. Permits that nobody took are kept, ``burst`` of
them at most. Who gets none is told when to come back, and that time is kept for him. The script
`jobs/broker/lua/permits.lua` does on Redis what `ask` does here.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

#: Seconds for which a slot is held unless it is kept on.
SLOT = 60.0
#: Seconds for which a slot that was freed is kept for the one who waited longest.
HANDED = 10.0
#: Seconds after which who waits for a slot asks again, should nobody have woken him; with many
#: waiting it is more, so that asking costs the same: so much for each, and so much at most.
ASK_AGAIN, ASK_AGAIN_EACH, ASK_AGAIN_MOST = 10.0, 0.05, 600.0

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*([smh]))?\s*")

#: The burst of a rate that names none is what it gives in so many seconds: a worker that is late
#: by less loses no permit.
_LATE = 0.1


#: Instead of a time that was kept: a permit was given, and given back.
GIVEN_BACK = -1.0


class Rate(NamedTuple):
    """So many seconds between two permits, and how many are kept."""

    interval: float
    burst: int = 1


class Bucket(NamedTuple):
    """What is known of one rate, in Unix seconds."""

    #: When it will be full again: each permit makes that later by an interval.
    granted: float = 0.0
    #: The first time that isn't kept for anybody.
    reserved: float = 0.0
    #: Of the rate by which it was last asked, in seconds; 0: it is new.
    interval: float = 0.0


class Permit(NamedTuple):
    """The answer to one question for a permit."""

    #: Seconds until one may be asked for again; 0: it is given.
    wait: float
    #: When that is, in Unix seconds by the broker's clock: to be named when asking again.
    at: float = 0.0


class Wish(NamedTuple):
    """Questions for permits of one rate."""

    limit: str
    rate: Rate
    #: For each permit the time that was kept for it (`Permit.at`), `GIVEN_BACK`, or 0.0.
    before: Sequence[float]
    #: Seconds beyond which none is kept; None: however late.
    within: float | None = None
    #: How many that were given are not used, and are given back first.
    unused: int = 0


class Slot(NamedTuple):
    """One of so many places under a limit, and who has it or wants it."""

    limit: str
    most: int
    #: A task's id or another name that nobody else has. Asking twice is asking once.
    holder: str
    #: Where the message of its task waits when there is none, and until when (Unix seconds).
    queue: str = ""
    due: float = 0.0


class Take(enum.StrEnum):
    """How a lock is taken."""

    #: If nobody else has it.
    FREE = ""
    #: From whoever has it. When it is given up, those that were replaced can tell so for as long as
    #: it would have been kept.
    REPLACE = "replace"
    #: Only kept for longer, if it is ours.
    KEEP = "keep"


class Lock(NamedTuple):
    """The right of one call to be the only one of its name."""

    name: str
    task_id: str
    #: For how many seconds it is kept at most.
    seconds: float = 0.0
    take: Take = Take.FREE


# ------------------------------------------------------------------------------ rates


def parse(rate: str | float, burst: int | None = None) -> Rate:
    """``"100/s"``, ``"100/m"``, ``"100/h"``, or a number for each second.

    ``burst``: permits at once after a pause; None: what the rate gives in a tenth of a second, at
    least one. Raises `TypeError` or `ValueError`.
    """
    per_second = _per_second(rate)
    if burst is None:
        burst = max(1, round(per_second * _LATE))
    if isinstance(burst, bool) or not isinstance(burst, int):
        raise TypeError(f"burst must be a whole number, not {burst!r}")
    if burst < 1:
        raise ValueError(f"burst must be at least 1, not {burst!r}")
    return Rate(1 / per_second, burst)


def _per_second(rate: str | float) -> float:
    told = f"rate_limit must be like '100/s', '100/m', '100/h' or a number a second, not {rate!r}"
    if isinstance(rate, str):
        found = _WRITTEN.fullmatch(rate)
        if found is None:
            raise ValueError(told)
        number = float(found[1]) / _UNITS[found[2] or "s"]
    elif isinstance(rate, int | float) and not isinstance(rate, bool):
        number = float(rate)
    else:
        raise TypeError(told)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{told}; None is no limit")
    return number


def at_rate(bucket: Bucket, rate: Rate, now: float) -> Bucket:
    """The same bucket, asked by a rate that may be another one than before: to a faster one, what
    was taken and kept counts in its own intervals. To a slower one it counts as it is."""
    if rate.interval < bucket.interval:
        times = rate.interval / bucket.interval
        bucket = bucket._replace(
            granted=min(bucket.granted, now + (bucket.granted - now) * times),
            reserved=min(bucket.reserved, now + (bucket.reserved - now) * times),
        )
    return bucket._replace(interval=rate.interval)


def give_back(bucket: Bucket, rate: Rate, unused: int) -> Bucket:
    """Permits that were given and are not used."""
    return bucket._replace(granted=bucket.granted - unused * rate.interval)


def ask(
    bucket: Bucket, rate: Rate, before: float, now: float, within: float | None = None
) -> tuple[Bucket, Permit]:
    """Ask for one permit.

    ``before``: the time that was kept for the one who asks, `GIVEN_BACK`, or 0.0. ``within``:
    nothing is kept for him when he would have to wait longer than so many seconds.
    """
    ready = bucket.granted - (rate.burst - 1) * rate.interval
    # Of the burst, those that wait leave a third for starts that come late after their permits,
    # and begin with another third in hand for workers that come late for theirs.
    spare = (rate.burst - 1) / 3 * rate.interval
    if before > 0:
        ready += spare
    # Who comes first doesn't pass those for whom a time is kept; but what nobody has come for in
    # its time is his, or it would be lost while they stand behind him in the queue.
    left_over = bucket.granted <= now - rate.interval
    if (before or bucket.reserved <= now or left_over) and ready <= now:
        # Late by less than an interval is on time, or each delay would cost the next its permit.
        since = now
        # Early by more: he was called before his time, when the rate changed.
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
