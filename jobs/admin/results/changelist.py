"""The list of results: its filters and pages, each answered by an index.

A ledger has millions of rows. Counting them reads them all, and so does OFFSET up to its page. So a
page has no number: it is "the next fifty behind this key", which reads fifty on the first page as
on the last. What the filters of this file mean is in `jobs.control.selecting`; here they are shown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jobs import conf, registry
from jobs.admin import words
from jobs.admin.results import live
from jobs.control import selecting
from jobs.models import LABEL, TaskResult
from jobs.states import State

#: Characters of the arguments, and of the error, that the list reads from the database.
HEAD = 200

OLDER, NEWER = "older", "newer"

#: Columns that can hold megabytes: a page would load fifty of each.
LARGE = ("args", "kwargs", "result", "error", "traceback", "message")


class Newest:
    """Results by their ids, the newest first. A page's key is an id."""

    order: ClassVar[tuple[str, ...]] = ("-pk",)
    reverse: ClassVar[tuple[str, ...]] = ("pk",)

    @staticmethod
    def key(row: TaskResult) -> str:
        return str(row.pk)

    @staticmethod
    def after(key: str) -> Q:
        return Q(pk__lt=key)

    @staticmethod
    def before(key: str) -> Q:
        return Q(pk__gt=key)


class Next(Newest):
    """Calls by the time at which they are due, the next one first. A page's key is both, since many
    may be due at one time. Raises `ValueError` for another key."""

    order: ClassVar[tuple[str, ...]] = ("eta", "pk")
    reverse: ClassVar[tuple[str, ...]] = ("-eta", "-pk")

    @staticmethod
    def key(row: TaskResult) -> str:
        return f"{row.eta and row.eta.isoformat()},{row.pk}"

    @staticmethod
    def after(key: str) -> Q:
        eta, pk = _due_and_id(key)
        return Q(eta__gt=eta) | Q(eta=eta, pk__gt=pk)

    @staticmethod
    def before(key: str) -> Q:
        eta, pk = _due_and_id(key)
        return Q(eta__lt=eta) | Q(eta=eta, pk__lt=pk)


def _due_and_id(key: str) -> tuple[dt.datetime, str]:
    eta, _comma, pk = key.partition(",")
    found = selecting.moment(eta)
    if found is None:
        raise ValueError(key)
    return found, pk


class ResultList(ChangeList):
    """Results by key. ``p=older:<key>`` and ``p=newer:<key>`` are the pages behind and in front;
    Django drops this parameter when the filters change."""

    #: Query strings of the neighbouring pages; empty when there is no such page.
    newest_url = newer_url = older_url = ""
    #: Why the filters mean nothing.
    problem = ""
    #: A sentence when only the newest rows were looked through, and the query string of a list that
    #: goes on below them.
    cut_note = cut_url = ""
    #: How many match, in words.
    count_text = ""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[TaskResult]:
        rows: QuerySet[TaskResult] = super().get_queryset(request, *args, **kwargs)
        if request.method == "GET":  # what is chosen is acted on
            rows = rows.using(selecting.listed().db)
        self.cut = ""
        self.by: type[Newest] = Newest
        try:
            selection = selecting.read(request.GET)
        except ValueError as error:
            self.problem = str(error)
            return rows.none()
        self.by = Next if selection.due else Newest
        rows, self.cut = selection.bounded(rows, restricted=selecting.is_restricted())
        return rows.defer(*LARGE).annotate(
            args_head=Left("args", HEAD),
            kwargs_head=Left("kwargs", HEAD),
            error_head=Left("error", HEAD),
        )

    def get_results(self, request: HttpRequest) -> None:
        size = self.list_per_page
        direction, _colon, key = request.GET.get(PAGE_VAR, "").partition(":")
        by = self.by
        try:
            in_front, behind = by.before(key), by.after(key)
        except ValueError:
            key, in_front, behind = "", Q(), Q()
        newer, older = False, True
        rows: list[TaskResult] = []
        if key and direction == NEWER:
            found = list(self.queryset.filter(in_front).order_by(*by.reverse)[: size + 1])
            newer = len(found) > size
            rows = found[:size][::-1]
        if len(rows) < size:
            # The first page, also when it is near; or an older one.
            below = self.queryset.order_by(*by.order)
            newer = bool(key) and direction == OLDER
            found = list((below.filter(behind) if newer else below)[: size + 1])
            rows, older = found[:size], len(found) > size

        def url(direction: str, row: TaskResult) -> str:
            return self.get_query_string({PAGE_VAR: f"{direction}:{by.key(row)}"})

        if newer:
            self.newest_url = self.get_query_string()
            self.newer_url = url(NEWER, rows[0]) if rows else self.newest_url
        if older:
            self.older_url = url(OLDER, rows[-1])
        elif self.cut:
            self._say_where_it_ends()
        live.overlay(rows)
        self.result_list = rows
        self.paginator = Paginator(rows, self.list_per_page)
        alone = not newer and not older and not self.cut
        count = selecting.Count(number=len(rows)) if alone else selecting.count(self.queryset)
        self.count_text = _in_words(count, cut=bool(self.cut))
        # Where more match than the page shows, Django offers to choose all of them.
        self.result_count = max(count.number, len(rows) + (not alone))
        # Equal, so that Django shows no count of its own.
        self.full_result_count = self.result_count
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.can_show_all = self.multi_page = False

    @property
    def is_next(self) -> bool:
        """Whether it shows what is due next."""
        return self.by is Next

    def _say_where_it_ends(self) -> None:
        if self.is_next:
            self.cut_note = _(
                "These filters together have no index: the first %(n)s calls that are due were "
                "looked through."
            ) % {"n": number_format(selecting.LOOKED_AT, force_grouping=True)}
            return
        end = TaskResult.objects.using(self.queryset.db).filter(pk=self.cut)
        at = end.values_list("created_at", flat=True).first()
        values = {"n": number_format(selecting.LOOKED_AT, force_grouping=True)}
        self.cut_note = (
            _("These filters together have no index: the newest %(n)s results were looked through.")
            % values
        )
        if at is not None:
            self.cut_note += " " + _("They reach back to %(at)s.") % {"at": words.moment(at)}
            until = timezone.localtime(at).isoformat()
            self.cut_url = self.get_query_string({"until": until})


def _in_words(count: selecting.Count, *, cut: bool) -> str:
    number = number_format(count.number, force_grouping=True)
    if count.exact and not cut:
        return ngettext("%(n)s result", "%(n)s results", count.number) % {"n": number}
    if count.at_least or cut:
        return _("More than %(n)s results") % {"n": number}
    return _("About %(n)s results") % {"n": number}


# ------------------------------------------------------------------------------ filters


class _Filter(admin.SimpleListFilter):
    """Shows choices; `ResultList` filters. The choices don't come from the table: to find the
    values of millions of rows, the database would have to read them all."""

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> QuerySet[TaskResult]:
        return queryset


class StateFilter(_Filter):
    title = gettext_lazy("state")
    parameter_name = "state__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(State.choices)


class _NameFilter(_Filter):
    def names(self) -> list[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        # The address may name another one, such as a task that was removed from the code.
        asked = request.GET.get(self.parameter_name or "")
        return [(name, name) for name in sorted({*self.names(), *([asked] if asked else [])})]


class TaskFilter(_NameFilter):
    title = gettext_lazy("task")
    parameter_name = "task"

    def names(self) -> list[str]:
        return list(registry.tasks)


class QueueFilter(_NameFilter):
    title = gettext_lazy("queue")
    parameter_name = "queue"

    def names(self) -> list[str]:
        return list(conf.get().queues)


class SentFilter(_Filter):
    title = gettext_lazy("time sent")
    parameter_name = "sent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        names = (_("Last hour"), _("Today"), _("Last 7 days"), _("Last 30 days"))
        return list(zip(selecting.PERIODS, names, strict=True))


class DueFilter(_Filter):
    title = gettext_lazy("time due")
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(selecting.NEXT, _("Due later, the next first"))]


class TypedFilter(admin.ListFilter):
    """The filters whose values are typed, in one form."""

    title = gettext_lazy("more")
    template = "admin/jobs/taskresult/typed_filter.html"

    #: Parameter → its label, and the type of its field.
    FIELDS = (
        ("error_type", gettext_lazy("Error class"), "text"),
        ("error", gettext_lazy("Text of the error"), "text"),
        ("worker", gettext_lazy("Worker"), "text"),
        ("schedule", gettext_lazy("Schedule"), "select"),
        ("group", gettext_lazy("Group"), "text"),
        ("label", gettext_lazy("Label"), "text"),
        ("longer", gettext_lazy("Ran longer than (seconds)"), "number"),
        ("since", gettext_lazy("Sent from"), "datetime-local"),
        ("until", gettext_lazy("Sent before"), "datetime-local"),
    )

    def __init__(
        self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any
    ) -> None:
        super().__init__(request, params, model, model_admin)
        for name, _label, _kind in self.FIELDS:
            # A list since Django 5.0.
            found = params.pop(name, None)
            if found:
                self.used_parameters[name] = found[-1] if isinstance(found, list) else found
        self.schedules: Sequence[tuple[str, str]] = ()
        if request.user.has_perm(f"{LABEL}.view_schedule"):
            self.schedules = selecting.schedules()

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return [name for name, _label, _kind in self.FIELDS]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> QuerySet[TaskResult]:
        return queryset

    def choices(self, changelist: ChangeList) -> Any:
        """The fields, and the other parameters, which the form sends along."""
        zone = timezone.get_current_timezone_name()
        for name, text, kind in self.FIELDS:
            label, value = str(text), str(self.used_parameters.get(name, ""))
            if kind == "datetime-local":
                value = _local(value)
                label = f"{label} ({zone})"
            if kind == "select" and not self.schedules:
                kind = "text" if value else "none"
            yield {"name": name, "label": label, "kind": kind, "value": value}
        own = {*self.expected_parameters(), PAGE_VAR}
        for name, value in changelist.params.items():
            if name not in own:
                yield {"name": name, "kind": "hidden", "value": value}
        if changelist.query:
            yield {"name": "q", "kind": "hidden", "value": changelist.query}


def _local(value: str) -> str:
    """A moment as a browser's field has it; as given when it is none."""
    try:
        found = selecting.moment(value)
    except ValueError:
        return value
    return timezone.localtime(found).strftime("%Y-%m-%dT%H:%M:%S") if found else ""
