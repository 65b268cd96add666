"""Due times of rules without bounds, for tests of the wall clock."""

from __future__ import annotations

import datetime as dt

from jobs.timing import Rule


def following(
    crontab: str,
    interval: dt.timedelta | None,
    zone: str,
    *,
    after: dt.datetime,
    anchor: dt.datetime | None,
) -> dt.datetime | None:
    return Rule(crontab=crontab, interval=interval, zone=zone, anchor=anchor).following(after)
