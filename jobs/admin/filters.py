"""Filters of the list of results, by what an index of the ledger answers."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs import conf, registry
from jobs.models import TaskResult
from jobs.timing import clock


class _ChoiceFilter(admin.SimpleListFilter):
    """A filter by equality whose choices don't come from the table: finding out which values
    millions of rows have would mean reading them."""

    def names(self) -> list[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        # One that is asked for in the address, such as a task removed from the code, is shown too.
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
    """By the time in which the call was sent, which its id tells.

    ``created_at`` has no index for this, so the ids of that time narrow the rows down first. Ids
    that other producers made up without a time are found if they sort above those, as random
    UUIDs do but for one in a hundred.
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
        since = _since(self.value())
        if since is None:
            return queryset
        return queryset.filter(pk__gte=_first_id(since), created_at__gte=since)


def _since(span: str | None) -> dt.datetime | None:
    now = timezone.localtime(clock.now())
    starts = {
        "hour": now - dt.timedelta(hours=1),
        "today": now.replace(hour=0, minute=0, second=0, microsecond=0),
        "week": now - dt.timedelta(days=7),
        "month": now - dt.timedelta(days=30),
    }
    return starts.get(span or "")


def _first_id(at: dt.datetime) -> str:
    """The id below all version 7 UUIDs that are made from this moment on."""
    stamp = f"{int(at.timestamp() * 1000):012x}"
    return f"{stamp[:8]}-{stamp[8:]}"
