"""Which results an operator means: filters as a value, and the rows that they match.

The admin's list, its acts on all that match, its export and `manage.py jobs_retry` all read their
filters here. A ledger has millions of rows, so `Selection.bounded` looks through no more than the
newest `LOOKED_AT` rows of an index where no index answers the whole question.
"""

from __future__ import annotations

import builtins
import datetime as dt
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from django.core.exceptions import EmptyResultSet, ImproperlyConfigured
from django.db import connections, router
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from jobs import conf, ledger, registry
from jobs.exceptions import ConfigurationError
from jobs.models import Schedule, ScheduleRun, TaskResult
from jobs.models.results import TaskResultQuerySet, state_is
from jobs.states import State
from jobs.timing import clock

#: Rows of an index that one question reads at most.
LOOKED_AT = 10_000
#: Rows that are counted; above it, the number is an estimate or "more than".
COUNTED = 10_000
#: Newest calls of a schedule that a selection finds.
RUNS = 1000

#: The beginning of a UUID. A shorter text is more likely meant as part of a name ("add").
_ID_START = re.compile(r"[0-9a-f]{8}[0-9a-f-]*", re.IGNORECASE)
#: An age, and its units in seconds.
_AGE = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: What ``due`` may say: calls whose time is still to come, the next one first.
NEXT = "next"
#: Filters that workers of a version before them pass over when a message names them.
LATER = ("label", "due")
#: How far clocks of senders may be ahead of this machine's.
_AHEAD = dt.timedelta(days=1)
#: The longest duration that can be asked for, in seconds: a hundred years.
_LONGEST = 3_153_600_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many rows match."""

    number: int
    #: False: an estimate, or (``at_least``) as far as was counted.
    exact: bool = True
    at_least: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """All conditions hold together; an empty one says nothing."""

    ids: tuple[str, ...] = ()
    #: An id or its beginning, a part of a task's name, a label, or a part of an error's text.
    q: str = ""
    state: str = ""
    task: str = ""
    queue: str = ""
    #: The worker's name, or its beginning.
    worker: str = ""
    #: The key of a schedule.
    schedule: str = ""
    group: str = ""
    #: The whole label.
    label: str = ""
    #: `NEXT`, or nothing.
    due: str = ""
    #: The class of the error, with its module or, which takes longer, without.
    error_type: str = ""
    #: A part of the error's text.
    error: str = ""
    #: When the call was sent: from this moment, and before that one.
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    #: Seconds that its last attempt ran at least.
    longer: float | None = None

    # ------------------------------------------------------------------ as data

    def as_data(self) -> dict[str, Any]:
        """For a message; `read` takes it."""
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in (None, "", ()):
                plain = value.isoformat() if isinstance(value, dt.datetime) else value
                found[field.name] = list(plain) if isinstance(plain, tuple) else plain
        return found

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in self.as_data().items() if name != "ids"]
        if self.ids:
            parts.append(f"{len(self.ids)} ids")
        return ", ".join(parts) or _("all results")

    # ------------------------------------------------------------------ rows

    def all_of(self, rows: QuerySet[TaskResult]) -> QuerySet[TaskResult]:
        """All that match, however long the database takes to find them."""
        return self._plan().rows(rows)

    def bounded(
        self, rows: QuerySet[TaskResult], *, restricted: bool = False, most: int | None = None
    ) -> tuple[QuerySet[TaskResult], str]:
        """The matching rows among the newest that can be looked through quickly, and the id that
        the search ends at; "" if it goes through to the oldest.

        ``restricted``: ``rows`` has conditions of its own, which may have no index. ``most``: rows
        of an index that are read, `LOOKED_AT` if it doesn't say.
        """
        most = most or LOOKED_AT
        plan = self._plan()
        found = plan.rows(rows)
        if self.due:
            return _due_first(found, plan, most)
        if plan.few or (len(plan.indexed) <= 1 and not plan.others and not restricted):
            return found, ""
        # Each index leads to the rows of its condition, newest first. The search may go as deep as
        # the one that gets furthest.
        everything = ledger.results().using(rows.db).filter(plan.range)
        ends = []
        for condition in plan.indexed or [Q()]:
            keys = everything.filter(condition).order_by("-pk").values_list("pk", flat=True)
            end = list(keys[most - 1 : most])
            if not end:
                return found, ""
            ends += end
        return found.filter(pk__gte=min(ends)), min(ends)

    def _plan(self) -> _Plan:
        q, task, error = self.q, [self.task] if self.task else [], self.error
        label = [self.label] if self.label else []
        ids: list[str] | None = list(self.ids) if self.ids else None
        start = ""
        if q:
            rows = ledger.results()
            if rows.filter(pk=q).exists():
                ids = [q] if ids is None or q in ids else []
            elif _ID_START.fullmatch(q):
                start = q.lower()
            elif known := [name for name in registry.tasks if q.lower() in name.lower()]:
                task = [name for name in known if not task or name in task]
            elif rows.filter(task=q).exists():
                task = [q] if not task or q in task else []
            elif rows.filter(_has_label(q)).exists():
                label = [*label, q]
            else:
                error = error or q
        plan = _Plan()
        if self.schedule:
            runs = ScheduleRun.objects.using(ledger.alias()).filter(schedule=int(self.schedule))
            sent = runs.exclude(result="").order_by("-due_at").values_list("result", flat=True)
            calls = list(sent[:RUNS])
            ids = calls if ids is None else [one for one in ids if one in calls]
        if ids is not None:
            plan.find(Q(pk__in=ids))
        if start:
            # Every database can use an index for the range, with any collation: "g" comes after
            # all characters of a UUID. The prefix then makes it exact.
            plan.find(Q(pk__gte=start, pk__lt=f"{start}g", pk__startswith=start))
        if self.group:
            plan.find(Q(group_id=self.group))
        # A search in the text of errors goes through the newest failures, not the newest rows.
        state = self.state or (State.FAILURE if error else "")
        if state == State.SUCCESS:
            plan.others.append(Q(state=state))  # most rows: their index leaves them out
        elif state:
            plan.indexed.append(state_is(state, vendor=connections[ledger.alias()].vendor))
        if len(task) == 1:
            plan.indexed.append(Q(task=task[0]))
        elif task or self.task:
            plan.others.append(Q(task__in=task))
        plan.indexed += map(_has_label, label)
        if self.due:
            to_come = Q(eta__isnull=False, eta__gt=clock.now(), finished_at__isnull=True)
            # Not `state IN`, for which SQLite takes the index of states, and sorts.
            plan.waiting = to_come & ~Q(state=State.STARTED)
        if self.error_type and "." not in self.error_type:
            if hasattr(builtins, self.error_type):
                plan.indexed.append(_is_error(f"builtins.{self.error_type}"))
            else:
                plan.others.append(Q(error_type__endswith=f".{self.error_type}"))
        elif self.error_type:
            plan.indexed.append(_is_error(self.error_type))
        if error:
            plan.others.append(Q(error__icontains=error))
        if self.queue:
            plan.others.append(Q(queue=self.queue))
        if self.worker:
            plan.others.append(Q(worker__startswith=self.worker))
        if self.longer is not None:
            span = dt.timedelta(seconds=self.longer)
            plan.others.append(Q(finished_at__gte=F("started_at") + span))
        if self.since is not None:
            plan.sent &= Q(created_at__gte=self.since)
            # All version 7 UUIDs made from this moment on sort above it. So do random ones, all
            # but one in a hundred.
            plan.range &= Q(pk__gte=first_id(self.since))
        if self.until is not None:
            plan.sent &= Q(created_at__lt=self.until)
            later, ahead = Q(pk__lt=first_id(self.until)), first_id(clock.now() + _AHEAD)
            if ledger.results().filter(pk__gte=ahead).exists():  # ids that tell no time
                later |= Q(pk__gte=ahead)
            plan.range &= later
        return plan


# With each index's own condition, without which SQLite doesn't use it.


def _is_error(name: str) -> Q:
    return Q(error_type=name) & ~Q(error_type="")


def _has_label(label: str) -> Q:
    return Q(label=label) & ~Q(label="")


def _due_first(
    found: QuerySet[TaskResult], plan: _Plan, most: int
) -> tuple[QuerySet[TaskResult], str]:
    """`Selection.bounded` for calls that are still to come: it looks through those due first."""
    waiting = ledger.results().using(found.db).filter(plan.waiting).order_by("eta", "pk")
    end = waiting.values_list("eta", "pk")[most - 1 : most].first()
    if plan.few or end is None or not (plan.indexed or plan.others):
        return found, ""
    return found.filter(eta__lte=end[0]), end[1]


class _Plan:
    """The conditions of a selection, by what it costs to find their rows."""

    def __init__(self) -> None:
        #: Answered by an index in the order of the list.
        self.indexed: list[Q] = []
        #: Not answered by an index.
        self.others: list[Q] = []
        #: The times of sending, and the range of ids that were made then.
        self.sent, self.range = Q(), Q()
        #: Answered by the index of calls that are still to come, in the order in which they are.
        self.waiting = Q()
        #: Whether an index leads to few rows, which may be sorted and read one by one.
        self.few = False
        self._found: list[Q] = []

    def find(self, condition: Q) -> None:
        self._found.append(condition)
        self.few = True

    def rows(self, rows: QuerySet[TaskResult]) -> QuerySet[TaskResult]:
        conditions = (*self._found, *self.indexed, *self.others)
        return rows.filter(*conditions, self.waiting, self.sent, self.range)


# ------------------------------------------------------------------------------ reading

#: Names of periods that end now → the moment at which they began.
PERIODS = ("hour", "today", "week", "month")


def _start(period: str) -> dt.datetime:
    now = timezone.localtime(clock.now())
    return {
        "hour": now - dt.timedelta(hours=1),
        "today": now.replace(hour=0, minute=0, second=0, microsecond=0),
        "week": now - dt.timedelta(days=7),
        "month": now - dt.timedelta(days=30),
    }[period]


def read(values: Mapping[str, Any]) -> Selection:
    """A selection from the parameters of an address, from a message or from a command's options.

    Other names are passed over. Raises `ValueError` with a sentence when a value means nothing:
    a filter that is left out would match more than somebody asked for.
    """

    def text(name: str) -> str:
        value = values.get(name)
        found = "" if value is None else str(value).strip()
        if "\0" in found:
            raise ValueError(_("A filter can’t have the character NUL."))
        return found

    state, sent = text("state") or text("state__exact"), text("sent")
    if state and state not in State.values:
        raise ValueError(_("There is no state “%(value)s”.") % {"value": state})
    if sent and sent not in PERIODS:
        raise ValueError(_("There is no period “%(value)s”.") % {"value": sent})
    since = moment(text("since"))
    if sent:
        since = max(_start(sent), since) if since else _start(sent)
    schedule = text("schedule")
    if schedule and not (schedule.isdecimal() and schedule.isascii() and len(schedule) < 19):
        raise ValueError(_("There is no schedule “%(value)s”.") % {"value": schedule})
    due = text("due")
    if due and due != NEXT:
        raise ValueError(_("“due” can only be “next”, not “%(value)s”.") % {"value": due})
    longer = text("longer")
    try:
        seconds = float(longer) if longer else None
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 <= seconds <= _LONGEST:
        raise ValueError(
            _("A duration is a number of seconds, not “%(value)s”.") % {"value": longer}
        )
    return Selection(
        ids=tuple(map(str, values.get("ids") or ())),
        state=state,
        due=due,
        schedule=schedule,
        since=since,
        until=moment(text("until")),
        longer=seconds,
        **{
            name: text(name)
            for name in ("q", "task", "queue", "worker", "group", "label", "error_type", "error")
        },
    )


def moment(given: str) -> dt.datetime | None:
    """A date or a date with a time, in the current time zone unless it names one; or an age such as
    ``90m``. None for "". Raises `ValueError` for anything else."""
    if not given:
        return None
    if age := _AGE.fullmatch(given):
        return clock.now() - dt.timedelta(seconds=int(age[1]) * _UNITS[age[2]])
    try:
        found = parse_datetime(given)
        if found is None and (day := parse_date(given)) is not None:
            found = dt.datetime.combine(day, dt.time.min)
        if found is not None and timezone.is_naive(found):
            found = found.replace(tzinfo=timezone.get_current_timezone())
        if found is not None:
            return found.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        _("“%(value)s” is no time such as 2026-03-01 14:30 or 90m.") % {"value": given}
    )


def first_id(at: dt.datetime) -> str:
    """The lowest id that is made at this moment."""
    milliseconds = min(max(0, int(at.timestamp() * 1000)), 2**48 - 1)
    return str(uuid.UUID(int=milliseconds << 80))


# ------------------------------------------------------------------------------ counting


def count(rows: QuerySet[TaskResult]) -> Count:
    """How many rows there are: counted up to `COUNTED`, and estimated by PostgreSQL above that."""
    estimated = 0
    if connections[rows.db].vendor == "postgresql":
        estimated = _estimated(rows)
        if estimated > COUNTED:
            return Count(number=estimated, exact=False)
    found = rows.order_by().values("pk")[: COUNTED + 1].count()
    if found <= COUNTED:
        return Count(number=found)
    return Count(number=found - 1, exact=False, at_least=True)


def _estimated(rows: QuerySet[TaskResult]) -> int:
    """The number of rows that PostgreSQL's planner expects."""
    try:
        sql, parameters = rows.order_by().values("pk").query.sql_with_params()
    except EmptyResultSet:
        return 0
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
        (plan,) = cursor.fetchone()[0]
    return int(plan["Plan"]["Plan Rows"])


# ------------------------------------------------------------------------------ who sees what


def listed() -> TaskResultQuerySet:
    """All rows of results, to be shown and not to be acted on: a replica may have them."""
    using = router.db_for_read(TaskResult) if conf.get().lists_from_replica else ledger.alias()
    return TaskResult.objects.using(using)


def is_restricted() -> bool:
    """Whether ``JOBS["ADMIN_QUERYSET"]`` says what each person sees."""
    return bool(conf.get().admin_queryset)


def seen_by(request: HttpRequest, rows: QuerySet[TaskResult]) -> QuerySet[TaskResult]:
    """Those of these rows that the person of this request may see."""
    path = conf.get().admin_queryset
    if not path:
        return rows
    try:
        hook = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"JOBS['ADMIN_QUERYSET']: {error}.") from error
    found = hook(request, rows)
    if not isinstance(found, QuerySet) or not issubclass(found.model, TaskResult):
        raise ImproperlyConfigured(
            f"JOBS['ADMIN_QUERYSET']: {path} must return a queryset of results, not {found!r}."
        )
    return found


def schedules() -> list[tuple[str, str]]:
    """Key and name of the schedules that a list can offer."""
    found = Schedule.objects.using(ledger.alias()).order_by("name").values_list("pk", "name")
    return [(str(key), name) for key, name in found[:200]]
