"""The next 24 hours of all schedules: how many runs each half hour has, and which come next."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.formats import time_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs.models import Schedule

_SPAN = dt.timedelta(hours=24)
#: Half hours.
_BARS = 48
_BAR = _SPAN / _BARS

#: Schedules that are looked at, those that run next first, and runs that are worked out for all of
#: them together. One that runs more often than its share allows goes on at the same pace.
SCHEDULES, _RUNS = 200, 2_000

#: Runs that are listed.
LISTED = 10

#: Units of the picture: width of a bar, and height of the highest.
_WIDTH, _HEIGHT = 12, 40


class Next(NamedTuple):
    """A run that comes next."""

    at: dt.datetime
    schedule: Schedule


class Bar(NamedTuple):
    """One half hour of the picture, in its units."""

    x: int
    y: float
    height: float
    #: What a person reads when pointing at it.
    title: str


def context_of(schedules: Iterable[Schedule], now: dt.datetime) -> dict[str, Any]:
    """What the template shows of these schedules, which come in the order of their next runs."""
    chosen = list(schedules)[: SCHEDULES + 1]
    cut, chosen = len(chosen) > SCHEDULES, chosen[:SCHEDULES]
    counts = [0.0] * _BARS
    nearest: list[Next] = []
    for schedule in chosen:
        at = _runs(schedule, now, _RUNS // len(chosen))
        nearest += [Next(moment, schedule) for moment in at[:LISTED]]
        for moment in at:
            counts[int((moment - now) / _BAR)] += 1
        if len(at) == _RUNS // len(chosen) > 1:
            _go_on(counts, at, now)
    nearest.sort(key=lambda run: (run.at, run.schedule.name))
    most = max([*counts, 1.0])
    bars = []
    for n, count in enumerate(counts):
        height = round(_HEIGHT * count / most, 1)
        begin, end = (timezone.localtime(now + _BAR * k) for k in (n, n + 1))
        span = f"{time_format(begin, 'H:i')}–{time_format(end, 'H:i')}"
        runs = ngettext("%(n)d run", "%(n)d runs", round(count)) % {"n": round(count)}
        bars.append(Bar(n * _WIDTH, _HEIGHT - height, height, f"{span}: {runs}"))
    total = round(sum(counts))
    said = ngettext("%(n)d run", "%(n)d runs", total) % {"n": total}
    return {
        "bars": bars,
        "width": _WIDTH * _BARS,
        "bar_width": _WIDTH - 2,
        "height": _HEIGHT,
        "said": _("%(runs)s in the next 24 hours") % {"runs": said},
        "total": total,
        "nearest": nearest[:LISTED],
        "cut": cut,
    }


def _runs(schedule: Schedule, now: dt.datetime, most: int) -> list[dt.datetime]:
    """At most so many of its runs within the next 24 hours."""
    try:
        found = schedule.next_runs(now, most)
    except ValidationError:
        return []  # the list says that its rule can't be read
    until = schedule.paused_until
    return [at for at in found if at < now + _SPAN and (until is None or at >= until)]


def _go_on(counts: list[float], at: list[dt.datetime], now: dt.datetime) -> None:
    """Count the runs after the last one that was worked out, at the pace of those before it."""
    pace = (len(at) - 1) / max((at[-1] - at[0]) / _BAR, 1e-6)
    begun = (at[-1] - now) / _BAR
    for n in range(int(begun), _BARS):
        counts[n] += pace * (n + 1 - max(begun, n))
