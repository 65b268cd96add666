"""The failures of a time, grouped by exception and task."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db.models import QuerySet
from django.db.models.functions import Left

from jobs import ledger
from jobs.admin import words
from jobs.control import selecting
from jobs.control.acts import DEAD
from jobs.models import KnownError, TaskResult
from jobs.states import State
from jobs.timing import clock


class Range(NamedTuple):
    span: dt.timedelta
    #: Digits at the beginning of an id that calls of one bar of the chart have in common: an id
    #: begins with its time in milliseconds, of which 12 digits are kept.
    digits: int


#: Bars of 66 seconds, 17 minutes, 4.7 hours.
RANGES = {
    "hour": Range(dt.timedelta(hours=1), 8),
    "day": Range(dt.timedelta(days=1), 7),
    "week": Range(dt.timedelta(days=7), 6),
}

#: Failures that are read, the newest ones.
LOOKED_AT = 5_000
#: Groups that the page shows.
SHOWN = 50
#: Characters of the sample.
_SAMPLE = 300
#: Height of a chart, in its own units.
_HEIGHT = 24


@dataclass(slots=True)
class Group:
    """Failures of one task with one exception."""

    task: str
    error_type: str
    count: int = 0
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    #: The id of the newest call.
    newest: str = ""
    #: The beginning of the newest error.
    sample: str = ""
    known: KnownError | None = None
    #: Start of an id → failures.
    counts: dict[str, int] = field(default_factory=dict)
    #: The bars of the chart: x, y and height.
    bars: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The chart as one SVG path, which is much shorter than a rectangle for each bar."""
        return "".join(f"M{x} {_HEIGHT}V{y}h1V{_HEIGHT}z" for x, y, _height in self.bars)

    def __str__(self) -> str:
        return f"{self.name}: {self.task}"

    @property
    def name(self) -> str:
        return words.error(self.error_type, "")

    @property
    def is_dead(self) -> bool:
        """Whether its messages are dead letters, which are put back from their own page."""
        return self.error_type in DEAD


@dataclass(frozen=True, slots=True)
class Found:
    since: dt.datetime
    groups: list[Group]
    known: list[Group]
    #: Groups that are not shown.
    more: int
    #: The bars of each chart.
    width: int
    #: Failures of all groups.
    count: int
    #: When there are too many failures to look through: the moment that the newest go back to.
    cut: dt.datetime | None


def find(rows: QuerySet[TaskResult], span: Range) -> Found:
    """Groups of these rows, the largest first. At most `LOOKED_AT` failures are read."""
    now = clock.now()
    since = now - span.span
    failures = selecting.Selection(state=State.FAILURE, since=since)
    found, end = failures.bounded(rows, restricted=True, most=LOOKED_AT)
    groups: dict[tuple[str, str], Group] = {}
    # Grouped here: the database would sort the rows, by three texts, which takes longer than to
    # send them. Those of a group come newest first.
    read = found.order_by("-id").values_list("task", "error_type", "id", "finished_at")
    for task, error_type, task_id, finished_at in read:
        group = groups.get((task, error_type))
        if group is None:
            group = groups[task, error_type] = Group(task, error_type, newest=task_id)
        group.count += 1
        start = task_id[: span.digits]
        group.counts[start] = group.counts.get(start, 0) + 1
        if finished_at is not None:
            if group.first is None or finished_at < group.first:
                group.first = finished_at
            if group.last is None or finished_at > group.last:
                group.last = finished_at
    ordered = sorted(groups.values(), key=lambda g: (-g.count, g.task, g.error_type))
    shown = ordered[:SHOWN]
    begin = int(selecting.first_id(since)[: span.digits], 16)
    width = int(selecting.first_id(now)[: span.digits], 16) - begin + 1
    _add_samples(rows, shown)
    for group in shown:
        _add_bars(group, begin, width)
    _add_known(shown)
    cut = ledger.results().filter(pk=end).values_list("created_at", flat=True) if end else []
    return Found(
        since=since,
        groups=[group for group in shown if group.known is None],
        known=[group for group in shown if group.known is not None],
        more=len(ordered) - len(shown),
        width=width,
        count=sum(group.count for group in ordered),
        cut=next(iter(cut), None),
    )


def _add_samples(rows: QuerySet[TaskResult], groups: list[Group]) -> None:
    newest = rows.filter(pk__in=[group.newest for group in groups])
    texts = dict(newest.annotate(head=Left("error", _SAMPLE)).values_list("pk", "head"))
    for group in groups:
        group.sample = words.writable(texts.get(group.newest, ""))


def _add_known(groups: list[Group]) -> None:
    marked = KnownError.objects.using(ledger.alias()).filter(
        task__in={group.task for group in groups},
        error_type__in={group.error_type for group in groups},
    )
    known = {(one.task, one.error_type): one for one in marked}
    for group in groups:
        group.known = known.get((group.task, group.error_type))


def _add_bars(group: Group, begin: int, width: int) -> None:
    most = max(group.counts.values())
    for start, count in sorted(group.counts.items()):
        try:
            x = int(start, 16) - begin
        except ValueError:  # an id of another sender, which tells no time
            continue
        if 0 <= x < width:
            height = max(1.0, round(_HEIGHT * count / most, 1))
            group.bars.append((x, round(_HEIGHT - height, 1), height))
