"""The list of results: its filters and pages, each answered by an index.

A ledger has millions of rows. Counting them reads them all, and so does OFFSET up to its page. So a
page has no number: it is "the next fifty below this key", which reads fifty on the first page as
on the last.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs import conf, registry
from jobs.admin.results import live
from jobs.models import TaskResult
from jobs.timing import clock

#: Characters of the arguments, and of the error, that the list reads from the database.
HEAD = 200

OLDER, NEWER = "older", "newer"


class ResultList(ChangeList):
    """Results by key, newest first. ``p=older:<key>`` and ``p=newer:<key>`` are the other pages;
    Django drops this parameter when the filters change."""

    #: Query strings of the neighbouring pages; empty when there is no such page.
    newest_url = newer_url = older_url = ""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[TaskResult]:
        """Without the columns that can hold megabytes: a page would load fifty of each."""
        rows: QuerySet[TaskResult] = super().get_queryset(request, *args, **kwargs)
        large = ("args", "kwargs", "result", "error", "traceback", "message")
        return rows.defer(*large).annotate(
            args_head=Left("args", HEAD),
            kwargs_head=Left("kwargs", HEAD),
            error_head=Left("error", HEAD),
        )

    def get_results(self, request: HttpRequest) -> None:
        size = self.list_per_page
        direction, _colon, key = request.GET.get(PAGE_VAR, "").partition(":")
        newer, older = False, True
        rows: list[TaskResult] = []
        if key and direction == NEWER:
            found = list(self.queryset.filter(pk__gt=key).order_by("pk")[: size + 1])
            newer = len(found) > size
            rows = found[:size][::-1]
        if len(rows) < size:
            # The first page, also when it is near; or an older one.
            below = self.queryset.order_by("-pk")
            newer = bool(key) and direction == OLDER
            found = list((below.filter(pk__lt=key) if newer else below)[: size + 1])
            rows, older = found[:size], len(found) > size

        def url(direction: str, row: TaskResult) -> str:
            return self.get_query_string({PAGE_VAR: f"{direction}:{row.pk}"})

        if newer:
            self.newest_url = self.get_query_string()
            self.newer_url = url(NEWER, rows[0]) if rows else self.newest_url
        if older:
            self.older_url = url(OLDER, rows[-1])
        live.overlay(rows)
        self.result_list = rows
        self.paginator = Paginator(rows, self.list_per_page)
        # All equal to the rows of the page. Django's templates then show no count, and don't offer
        # to select all results, which would load them.
        self.result_count = self.full_result_count = len(rows)
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.can_show_all = self.multi_page = False


class _ChoiceFilter(admin.SimpleListFilter):
    """A filter by equality. Its choices don't come from the table: to find the values of millions
    of rows, the database would have to read them all."""

    def names(self) -> list[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        # The address may name another one, such as a task that was removed from the code.
        asked = request.GET.get(self.parameter_name or "")
        return [(name, name) for name in sorted({*self.names(), *([asked] if asked else [])})]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> QuerySet[TaskResult]:
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class TaskFilter(_ChoiceFilter):
    title = _("task")
    parameter_name = "task"

    def names(self) -> list[str]:
        return list(registry.tasks)


class QueueFilter(_ChoiceFilter):
    title = _("queue")
    parameter_name = "queue"

    def names(self) -> list[str]:
        return list(conf.get().queues)


class SentFilter(admin.SimpleListFilter):
    """A filter by the time at which the call was sent.

    ``created_at`` has no index. Ids begin with the time at which they were made, so the primary key
    narrows the rows down first. Ids of other producers may have no time in them; random UUIDs sort
    above the others, all but one in a hundred, and are found.
    """

    title = _("time sent")
    parameter_name = "sent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("hour", _("Past hour")),
            ("today", _("Today")),
            ("week", _("Past 7 days")),
            ("month", _("Past 30 days")),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> QuerySet[TaskResult]:
        now = timezone.localtime(clock.now())
        starts = {
            "hour": now - dt.timedelta(hours=1),
            "today": now.replace(hour=0, minute=0, second=0, microsecond=0),
            "week": now - dt.timedelta(days=7),
            "month": now - dt.timedelta(days=30),
        }
        since = starts.get(self.value() or "")
        if since is None:
            return queryset
        # All version 7 UUIDs made from this moment on sort above it.
        stamp = f"{int(since.timestamp() * 1000):012x}"
        return queryset.filter(pk__gte=f"{stamp[:8]}-{stamp[8:]}", created_at__gte=since)
