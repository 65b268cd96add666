"""The last runs of schedules and what became of them, in a fixed number of queries."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import ledger
from jobs.admin import words
from jobs.admin.schedules import moments
from jobs.models import Schedule, ScheduleRun, TaskResult
from jobs.states import State

#: How many make a strip.
STRIP = 20

_GONE = gettext_lazy("sent; its result is not kept")


class Run(NamedTuple):
    """One due time, with what its result says."""

    due_at: dt.datetime
    at: dt.datetime
    outcome: str
    #: Id of the result; empty where none is kept, or nothing was sent.
    result: str = ""
    #: Of the result.
    state: str = ""
    error_type: str = ""

    @property
    def kind(self) -> str:
        """What it is coloured by."""
        if self.outcome != ScheduleRun.Outcome.SENT:
            return "skipped"
        return self.state.lower() or "gone"

    @property
    def said(self) -> str:
        """``failed: ValueError``"""
        if self.outcome != ScheduleRun.Outcome.SENT:
            return str(ScheduleRun.Outcome(self.outcome).label)
        if not self.state:
            return str(_GONE)
        label = str(State(self.state).label)
        if self.state in (State.FAILURE, State.RETRY) and self.error_type:
            return f"{label}: {self.error_type.rpartition('.')[2]}"
        return label

    @property
    def drift(self) -> dt.timedelta | None:
        """How late beat sent it; None if it didn't."""
        if self.outcome != ScheduleRun.Outcome.SENT:
            return None
        return max(self.at - self.due_at, dt.timedelta(0))


class Recent(NamedTuple):
    """What a schedule did lately."""

    #: The newest first.
    runs: list[Run]
    #: State of the call that it sent last; empty where that isn't known.
    state: str = ""

    @property
    def drift(self) -> dt.timedelta | None:
        """Of the last run that was sent."""
        return next((run.drift for run in self.runs if run.drift is not None), None)


def recent(schedules: Sequence[Schedule]) -> dict[Any, Recent]:
    """By schedule: three queries, however many there are."""
    found: dict[Any, list[ScheduleRun]] = defaultdict(list)
    for run in _newest(schedules):
        found[run.schedule_id].append(run)
    ids = {run.result for runs in found.values() for run in runs}
    results = _results([*ids, *(schedule.last_result for schedule in schedules)])
    return {
        schedule.pk: Recent(
            [_run(run, results) for run in found[schedule.pk]],
            results.get(schedule.last_result, ("", ""))[0],
        )
        for schedule in schedules
    }


def page(schedule: Schedule, before: dt.datetime | None, size: int) -> list[Run]:
    """The newest runs due before this moment."""
    rows = ScheduleRun.objects.using(ledger.alias()).filter(schedule=schedule).order_by("-due_at")
    if before is not None:
        rows = rows.filter(due_at__lt=before)
    found = list(rows[:size])
    results = _results(run.result for run in found)
    return [_run(run, results) for run in found]


def _newest(schedules: Sequence[Schedule]) -> QuerySet[ScheduleRun] | list[ScheduleRun]:
    """A schedule of every second has millions of runs. So first where each one's last few begin,
    which its index knows; then those alone."""
    earliest = (
        ScheduleRun.objects.using(ledger.alias())
        .filter(schedule=OuterRef("pk"))
        .order_by("-due_at")
    )
    starts = (
        Schedule.objects.using(ledger.alias())
        .filter(pk__in=[schedule.pk for schedule in schedules])
        .annotate(start=Subquery(earliest.values("due_at")[STRIP - 1 : STRIP]))
    )
    wanted = Q()
    for pk, start in starts.values_list("pk", F("start")):
        wanted |= Q(schedule=pk) if start is None else Q(schedule=pk, due_at__gte=start)
    if not wanted:
        return []
    return ScheduleRun.objects.using(ledger.alias()).filter(wanted).order_by("schedule", "-due_at")


def _results(ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Id → state and error of those that are kept."""
    wanted = {task_id for task_id in ids if task_id}
    results = TaskResult.objects.using(ledger.alias())
    rows = results.filter(pk__in=wanted) if wanted else results.none()
    return {
        pk: (state, error) for pk, state, error in rows.values_list("pk", "state", "error_type")
    }


def _run(run: ScheduleRun, results: dict[str, tuple[str, str]]) -> Run:
    state, error_type = results.get(run.result, ("", ""))
    kept = run.result if state else ""
    return Run(run.due_at, run.at, run.outcome, kept, state, error_type)


def title(run: Run, zone: str) -> str:
    """All about it in a line."""
    said = _("%(at)s: %(outcome)s") % {"at": moments.in_zone(run.due_at, zone), "outcome": run.said}
    if run.drift is None:
        return said
    return _("%(said)s, %(drift)s late") % {"said": said, "drift": words.duration(run.drift)}
