"""What statements past the models changed, found by looking at a few rows at a time."""

from __future__ import annotations

import datetime as dt

from jobs.beat import ticking
from jobs.models import Schedule
from jobs.models.planning import PLAN_FIELDS, RULE_FIELDS, digest_of

#: Rows of one look, which must stay short.
_ROWS = 50
#: A schedule that was planned further in the future than this was planned by a clock that has
#: been set back since. Clocks of several machines differ by less.
_AHEAD = dt.timedelta(minutes=1)


def sweep(now: dt.datetime, after: int) -> int:
    """Plan anew those of the next rows behind this key whose rule is not the one that they are
    planned for, or that were planned when the clock was ahead; the key to go on with, which is 0
    after the last one."""
    rows = ticking.schedules().order_by("pk").filter(pk__gt=after)
    looked = list(rows.values_list("pk", "planned_for", "planned_at", *RULE_FIELDS)[:_ROWS])
    wrong = [
        pk
        for pk, planned_for, planned_at, *rule in looked
        if planned_at is None or planned_at > now + _AHEAD or planned_for != digest_of(rule)
    ]
    if wrong:
        ticking.step(ticking.schedules().filter(pk__in=wrong), lambda found: _mend(found, now))
    return looked[-1][0] if len(looked) == _ROWS else 0


def _mend(found: list[Schedule], now: dt.datetime) -> None:
    # Whoever wrote it may have said itself when the next run is: that counts.
    given = [one for one in found if one.planned_at is None and one.next_run_at and one.enabled]
    for one in given:
        one.planned_for, one.planned_at = one.digest(), now
    ticking.write(given, PLAN_FIELDS)
    ticking.plan([one for one in found if one not in given], now)
