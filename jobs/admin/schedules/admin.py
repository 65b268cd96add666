"""The pages of schedules: the list, the form, and all runs of one."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache

from jobs import ledger
from jobs.admin import words
from jobs.admin.schedules import moments, preview, runs, verbs
from jobs.admin.schedules.actions import ScheduleActions
from jobs.admin.schedules.columns import LabelFilter, ScheduleColumns, ScheduleList, troubles
from jobs.admin.schedules.form import ScheduleForm
from jobs.models import Schedule
from jobs.schedules.merge import edited

#: Runs on a page of the history.
_PAGE = 100

_NEVER = "–"


@admin.register(Schedule)
class ScheduleAdmin(ScheduleActions, ScheduleColumns):
    form = ScheduleForm
    list_display = (
        "name_and_troubles",
        "rule",
        "enabled",
        "next_run",
        "last_runs",
    )
    show_facets = admin.ShowFacets.NEVER
    list_display_links = ("name_and_troubles",)
    list_filter = ("enabled", LabelFilter)
    list_per_page = 50
    search_fields = ("name", "task", "description", "labels")
    readonly_fields = ("about_task", "in_words", "so_far", "lately")

    class Media:
        css = {"all": ["jobs/admin.css", "jobs/schedule.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        """From where they are written: what a replica shows would be saved over what is new."""
        return super().get_queryset(request).using(ledger.alias())

    def get_urls(self) -> list[URLPattern]:
        def view(found: Any) -> Any:
            return self.admin_site.admin_view(never_cache(found))

        return [
            path("preview/", view(self.preview_view), name="jobs_schedule_preview"),
            path("<path:object_id>/runs/", view(self.runs_view), name="jobs_schedule_runs"),
            *super().get_urls(),
        ]

    # ------------------------------------------------------------------ the list

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Django's own title asks to select one, as if for something.
        return super().changelist_view(request, {"title": _("Schedules"), **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ScheduleList

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """Django would load each of their runs to name it, and there may be millions."""
        names = [str(schedule) for schedule in objs]
        counts = {str(self.opts.verbose_name_plural): len(names)}
        may = self.has_delete_permission(request)
        return names, counts, set() if may else {str(self.opts.verbose_name)}, []

    # ------------------------------------------------------------------ the form

    def get_fieldsets(self, request: HttpRequest, obj: Schedule | None = None) -> Any:
        what, when, *others = _FIELDSETS
        if obj and not self.has_change_permission(request, obj):
            # Who may only look gets the stored values, among which there is no kind.
            fields = tuple(name for name in when[1]["fields"] if name != "kind")
            when = (when[0], {**when[1], "fields": fields})
        return (*((_RUNS,) if obj else ()), what, when, *others)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Schedule | None = None
    ) -> tuple[str, ...]:
        # Code knows its schedules by their names: under another one it would be made anew.
        declared = obj is not None and obj.declared is not None
        return (*self.readonly_fields, "name") if declared else self.readonly_fields

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        copied = self.get_object(request, unquote(request.GET.get("copy", "")))
        if copied is None or not self.has_view_permission(request, copied):
            return super().get_changeform_initial_data(request)
        return verbs.values_of_copy(copied)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        schedule = kwargs.get("obj")
        context["preview_url"] = self.url("preview")
        if schedule is not None:
            context |= {
                "buttons": self.buttons(request, schedule),
                "troubles": troubles(schedule),
                "edited": [schedule._meta.get_field(n).verbose_name for n in edited(schedule)],
            }
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description=gettext_lazy("About it"))
    def about_task(self, schedule: Schedule) -> SafeString:
        # Rendered by templates, which escape.
        return _div("jobs-task", preview.task_help(schedule.task))

    @admin.display(description=gettext_lazy("In words"))
    def in_words(self, schedule: Schedule) -> SafeString:
        return _div("jobs-preview", preview.of(schedule))

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """What the page says while somebody types; changes nothing."""
        stored = self.get_object(request, unquote(request.GET.get("id", "")))
        may = self.has_view_permission(request, stored) or self.has_add_permission(request)
        if not may:
            raise PermissionDenied
        return preview.answer(request, stored)

    # ------------------------------------------------------------------ what became of it

    @admin.display(description=gettext_lazy("So far"))
    def so_far(self, schedule: Any) -> SafeString:
        recent = runs.recent([schedule])[schedule.pk]
        schedule.recent = recent
        at = schedule.last_run_at
        facts = [
            (_("Next run"), self.next_run(schedule)),
            (_("Last run"), moments.in_zone(at, schedule.timezone) if at else _NEVER),
            (
                _("Outcome"),
                self.badge(schedule.last_result, recent.state) if recent.state else _NEVER,
            ),
            (_("Sent"), schedule.runs),
            (_("Skipped"), schedule.skipped),
            (_("Drift"), _NEVER if recent.drift is None else words.duration(recent.drift)),
        ]
        return SafeString(
            "".join(
                format_html('<span class="jobs-fact"><small>{}</small> {}</span>', *fact)
                for fact in facts
            )
        )

    @admin.display(description=gettext_lazy("Last runs"))
    def lately(self, schedule: Any) -> SafeString:
        if not hasattr(schedule, "recent"):
            schedule.recent = runs.recent([schedule])[schedule.pk]
        return format_html(
            '{} <a class="jobs-more" href="{}">{}</a>',
            self.strip(schedule),
            self.url("runs", schedule),
            _("all runs"),
        )

    def runs_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """All runs, newest first, in pages by due time."""
        schedule = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, schedule):
            raise PermissionDenied
        if schedule is None:
            raise Http404(_("This schedule is not there any more."))
        found = runs.page(schedule, _moment(request.GET.get("before", "")), _PAGE + 1)
        rows = [
            {
                "run": run,
                "due": moments.in_zone(run.due_at, schedule.timezone),
                "drift": _NEVER if run.drift is None else words.duration(run.drift),
                "url": self.result_url(run.result) if run.result else "",
                # The end of the id: what is sent within a minute has the same beginning.
                "short": f"…{run.result[-12:]}",
            }
            for run in found[:_PAGE]
        ]
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Runs of “%(name)s”") % {"name": schedule.name},
            "schedule": schedule,
            "rows": rows,
            "paged": "before" in request.GET,
            "older": found[_PAGE - 1].due_at.isoformat() if len(found) > _PAGE else "",
        }
        return TemplateResponse(request, "admin/jobs/schedule/runs.html", context)


def _moment(text: str) -> dt.datetime | None:
    """None for what is no moment, which only a hand-made address has."""
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _div(name: str, html: str) -> SafeString:
    return format_html('<div id="{}">{}</div>', name, SafeString(html))


_RUNS = (None, {"fields": ("so_far", "lately")})
_FIELDSETS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (gettext_lazy("What"), {"fields": ("name", "task", "about_task", "args", "kwargs")}),
    (
        gettext_lazy("When"),
        {
            "fields": (
                *("kind", "crontab", "interval", "at", "timezone", "in_words"),
                *("enabled", ("start_at", "end_at"), "paused_until"),
            )
        },
    ),
    (
        gettext_lazy("If it can’t be just so"),
        {"fields": (("misfire", "misfire_window"), "overlap", "jitter")},
    ),
    (
        gettext_lazy("Details"),
        {
            "fields": (
                *("description", "labels", "queue", ("exchange", "routing_key"), "priority"),
                *(("expires", "expires_from"), "headers"),
            ),
            "classes": ("collapse",),
        },
    ),
)
