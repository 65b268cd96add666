"""The last runs of schedules with their outcomes, in a fixed number of queries."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from django.db.models import F, OuterRef, Q, Subquery
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import ledger
from jobs.admin import words
from jobs.admin.schedules import rules
from jobs.models import Schedule, ScheduleRun, TaskResult
from jobs.states import State

#: Most runs in a strip.
STRIP = 20

_GONE = gettext_lazy("sent; its result is not kept")


class Run(NamedTuple):
    """One due time, with the state of its result."""

    due_at: dt.datetime
    at: dt.datetime
    outcome: str
    #: Id of the result; empty when it isn't kept, or nothing was sent.
    result: str = ""
    #: Of the result.
    state: str = ""
    error_type: str = ""

    @property
    def kind(self) -> str:
        """The end of its CSS class, which gives the colour."""
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
        """How late beat sent it; None when beat didn't send it."""
        if self.outcome != ScheduleRun.Outcome.SENT:
            return None
        return max(self.at - self.due_at, dt.timedelta(0))


class Recent(NamedTuple):
    """The last runs of a schedule."""

    #: The newest first.
    runs: list[Run]
    #: State of the call that was sent last; empty when that isn't known.
    state: str = ""

    @property
    def drift(self) -> dt.timedelta | None:
        """Of the last run that was sent."""
        return next((run.drift for run in self.runs if run.drift is not None), None)


def recent(schedules: Sequence[Schedule]) -> dict[Any, Recent]:
    """By schedule, in three queries, however many schedules there are."""
    # A schedule of every second has millions of runs. So first ask where the last few runs of each
    # begin, which the index knows; then read those alone.
    runs = ScheduleRun.objects.using(ledger.alias())
    newest = runs.filter(schedule=OuterRef("pk")).order_by("-due_at").values("due_at")
    starts = (
        Schedule.objects.using(ledger.alias())
        .filter(pk__in=[schedule.pk for schedule in schedules])
        .annotate(start=Subquery(newest[STRIP - 1 : STRIP]))
    )
    wanted = Q()
    for pk, start in starts.values_list("pk", F("start")):
        wanted |= Q(schedule=pk) if start is None else Q(schedule=pk, due_at__gte=start)
    found: dict[Any, list[ScheduleRun]] = defaultdict(list)
    for run in runs.filter(wanted).order_by("schedule", "-due_at") if wanted else ():
        found[run.schedule_id].append(run)
    ids = {run.result for some in found.values() for run in some}
    results = _results([*ids, *(schedule.last_result for schedule in schedules)])
    return {
        schedule.pk: Recent(
            [_run(run, results) for run in found[schedule.pk]],
            results.get(schedule.last_result, ("", ""))[0],
        )
        for schedule in schedules
    }


def page(schedule: Schedule, before: dt.datetime | None, size: int) -> list[Run]:
    """The newest runs, or the newest that were due before this moment."""
    rows = ScheduleRun.objects.using(ledger.alias()).filter(schedule=schedule).order_by("-due_at")
    if before is not None:
        rows = rows.filter(due_at__lt=before)
    found = list(rows[:size])
    results = _results(run.result for run in found)
    return [_run(run, results) for run in found]


def _results(ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The state and the error of each result that is kept, by id."""
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
    """The run in one line."""
    said = _("%(at)s: %(outcome)s") % {"at": rules.in_zone(run.due_at, zone), "outcome": run.said}
    if run.drift is None:
        return said
    return _("%(said)s, %(drift)s late") % {"said": said, "drift": words.duration(run.drift)}
