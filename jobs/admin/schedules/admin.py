"""The pages of schedules: the list, the form, and all runs of one."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet, Value
from django.db.models.functions import Concat, Replace
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache

from jobs import ledger, registry
from jobs.admin import words
from jobs.admin.schedules import day, preview, rules, runs
from jobs.admin.schedules.form import ScheduleForm
from jobs.admin.schedules.verbs import VERBS, duplicate, values_of_copy
from jobs.admin.verbs import VerbAdmin, address
from jobs.models import Schedule
from jobs.schedules.merge import edited
from jobs.states import State
from jobs.timing import clock

#: Beat sends a due run within a second. A run that waits longer than this has no beat.
_OVERDUE = dt.timedelta(seconds=30)

#: Runs on a page of the history.
_PAGE = 100

#: Characters of a search that count.
_SEARCHED = 200

_NEVER = "–"


class ScheduleList(ChangeList):
    """Each row with its last runs, in the same few queries for all rows."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = list(self.result_list)
        found = runs.recent(rows)
        for row in rows:
            row.recent = found[row.pk]
        self.result_list = rows


class LabelFilter(admin.SimpleListFilter):
    title = gettext_lazy("label")
    parameter_name = "label"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        texts = (
            Schedule.objects.using(ledger.alias())
            .exclude(labels="")
            .order_by()
            .values_list("labels", flat=True)
        )
        found = {word.strip() for text in texts.distinct() for word in text.split(",")} - {""}
        return [(word, word) for word in sorted(found)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> QuerySet[Schedule]:
        asked = self.value()
        if not asked:
            return queryset
        listed = Concat(Value(","), Replace("labels", Value(", "), Value(",")), Value(","))
        return queryset.alias(listed=listed).filter(listed__contains=f",{asked},")


def troubles(schedule: Schedule) -> list[str]:
    """What an operator should look into."""
    said = []
    if schedule.task not in registry.tasks:
        said.append(_("its task is unknown here"))
    if schedule.dropped:
        said.append(_("no longer declared in code"))
    due = schedule.next_run_at
    if schedule.enabled and due is None:
        try:
            schedule.next_runs(clock.now(), 1)
        except ValidationError:
            said.append(_("its rule can’t be read"))
    if schedule.enabled and due is not None and due < clock.now() - _OVERDUE:
        said.append(_("overdue: is beat running?"))
    return said


@admin.register(Schedule)
class ScheduleAdmin(VerbAdmin):
    verbs = VERBS
    not_there = gettext_lazy("This schedule is not there any more.")
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
        """From the database that is written to: a slow replica's values would be saved over new
        ones."""
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
        rows = self.get_queryset(request).filter(enabled=True, next_run_at__isnull=False)
        context = {
            # Django's own title, "Select schedule to change", doesn't fit.
            "title": _("Schedules"),
            "day": day.context_of(rows.order_by("next_run_at")[: day.SCHEDULES + 1], clock.now()),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ScheduleList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Schedule], search_term: str
    ) -> tuple[QuerySet[Schedule], bool]:
        # Each word is a condition on each field, and databases bound the size of a query.
        return super().get_search_results(request, queryset, search_term[:_SEARCHED])

    @admin.display(description=gettext_lazy("name"), ordering="name")
    def name_and_troubles(self, schedule: Schedule) -> SafeString:
        labels = [word.strip() for word in schedule.labels.split(",") if word.strip()]
        return format_html(
            '{}<span class="jobs-why">{}</span>{}{}',
            schedule.name,
            schedule.task,
            format_html_join(" ", '<span class="jobs-label">{}</span>', ((w,) for w in labels)),
            format_html_join(
                "", '<span class="jobs-trouble">{}</span>', ((t,) for t in troubles(schedule))
            ),
        )

    @admin.display(description=gettext_lazy("rule"))
    def rule(self, schedule: Schedule) -> SafeString:
        foreign = schedule.timezone != timezone.get_current_timezone_name()
        return _lines(rules.in_words(schedule), [schedule.timezone] if foreign else [])

    @admin.display(description=gettext_lazy("next run"), ordering="next_run_at")
    def next_run(self, schedule: Schedule) -> SafeString | str:
        due = schedule.next_run_at
        if not schedule.enabled or due is None:
            return _NEVER
        now = clock.now()
        lines = [rules.local(due, schedule.timezone)]
        if schedule.paused_until and schedule.paused_until > now:
            lines.append(_("paused until then"))
        if schedule.queued_for:
            lines.append(_("a run waits for the last one to end"))
        return _lines(words.away(due, now), lines)

    @admin.display(description=gettext_lazy("last runs"), ordering="last_run_at")
    def last_runs(self, schedule: Any) -> SafeString | str:
        at, recent = schedule.last_run_at, schedule.recent
        if at is None and not recent.runs:
            return _NEVER
        badge = self.badge(schedule.last_result, recent.state) if recent.state else ""
        lines = [words.away(at, clock.now())] if at else []
        if recent.drift is not None:
            lines.append(_("drift %(span)s") % {"span": words.duration(recent.drift)})
        counts = [ngettext("%(n)d sent", "%(n)d sent", schedule.runs) % {"n": schedule.runs}]
        if skipped := schedule.skipped:
            counts.append(ngettext("%(n)d skipped", "%(n)d skipped", skipped) % {"n": skipped})
        lines.append(", ".join(counts))
        return _lines(format_html("{}{}", self.strip(schedule), badge), lines)

    def badge(self, result: str, state: str) -> SafeString:
        url = self.result_url(result)
        template = '<span class="jobs-state jobs-state-{}">{}</span>'
        if url:
            template = '<a href="{}" class="jobs-state jobs-state-{}">{}</a>'
            return format_html(template, url, state.lower(), State(state).label)
        return format_html(template, state.lower(), State(state).label)

    def result_url(self, result: str) -> str:
        return address(self.admin_site.name, "taskresult_change", quote(result))

    def strip(self, schedule: Any) -> SafeString:
        """A box for each of the last runs, the newest on the right."""
        found: list[runs.Run] = schedule.recent.runs
        if not found:
            return SafeString("")
        boxes = []
        for run in reversed(found):
            said = runs.title(run, schedule.timezone)
            template = (
                '<span class="jobs-box jobs-box-{}" role="img" title="{}" aria-label="{}"></span>'
            )
            values = [run.kind, said, said]
            if run.result and (url := self.result_url(run.result)):
                # The Tab key doesn't stop at it: a page would have hundreds of stops.
                template = (
                    '<a class="jobs-box jobs-box-{}" title="{}" aria-label="{}" href="{}"'
                    ' tabindex="-1"></a>'
                )
                values.append(url)
            boxes.append(format_html(template, *values))
        label = ngettext("The last run", "The last %(n)d runs", len(found)) % {"n": len(found)}
        return format_html(
            '<span class="jobs-strip" role="group" aria-label="{}">{}</span>',
            label,
            format_html_join("", "{}", ((box,) for box in boxes)),
        )

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """Only the schedules. Django would load each of their runs, and there may be millions."""
        names = [str(schedule) for schedule in objs]
        counts = {str(self.opts.verbose_name_plural): len(names)}
        may = self.has_delete_permission(request)
        return names, counts, set() if may else {str(self.opts.verbose_name)}, []

    # ------------------------------------------------------------------ the form

    def get_fieldsets(self, request: HttpRequest, obj: Schedule | None = None) -> Any:
        what, when, *others = _FIELDSETS
        if obj and not self.has_change_permission(request, obj):
            # Somebody who may only look sees the stored values, and there is no kind among them.
            fields = tuple(name for name in when[1]["fields"] if name != "kind")
            when = (when[0], {**when[1], "fields": fields})
        return (*((_RUNS,) if obj else ()), what, when, *others)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Schedule | None = None
    ) -> tuple[str, ...]:
        # Code finds its schedules by their names: it would make a renamed one anew.
        declared = obj is not None and obj.declared is not None
        return (*self.readonly_fields, "name") if declared else self.readonly_fields

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        copied = self.get_object(request, unquote(request.GET.get("copy", "")))
        if copied is None or not self.has_view_permission(request, copied):
            return super().get_changeform_initial_data(request)
        return values_of_copy(copied)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        schedule = kwargs.get("obj")
        context["preview_url"] = self.url("preview")
        context["tabs"] = self.tabs(request)
        if schedule is not None:
            # The form shows a copy before it is saved.
            copy_url = f"{self.url('add')}?copy={quote(schedule.pk)}"
            context |= {
                "buttons": [
                    {**button, "url": copy_url, "method": "get"}
                    if button["verb"] is duplicate
                    else button
                    for button in self.buttons(request, schedule)
                ],
                "troubles": troubles(schedule),
                "edited": [schedule._meta.get_field(n).verbose_name for n in edited(schedule)],
            }
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description=gettext_lazy("About the task"))
    def about_task(self, schedule: Schedule) -> SafeString:
        # Rendered by templates, which escape.
        return _div("jobs-task", preview.task_help(schedule.task))

    @admin.display(description=gettext_lazy("In words"))
    def in_words(self, schedule: Schedule) -> SafeString:
        return _div("jobs-preview", preview.of(schedule))

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """What the page shows while somebody types; nothing is saved."""
        stored = self.get_object(request, unquote(request.GET.get("id", "")))
        may = self.has_view_permission(request, stored) or self.has_add_permission(request)
        if not may:
            raise PermissionDenied
        return preview.answer(request, stored)

    # ------------------------------------------------------------------ its runs

    @admin.display(description=gettext_lazy("So far"))
    def so_far(self, schedule: Any) -> SafeString:
        recent = runs.recent([schedule])[schedule.pk]
        schedule.recent = recent
        at = schedule.last_run_at
        facts = [
            (_("Next run"), self.next_run(schedule)),
            (_("Last run"), rules.in_zone(at, schedule.timezone) if at else _NEVER),
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
        try:
            before = parse_datetime(request.GET.get("before", ""))
            # The database reads it by UTC, where the first and last days of all can't be told.
            before = before.astimezone(dt.UTC) if before and before.tzinfo else None
        except (ValueError, OverflowError):
            before = None  # only an address written by hand names no moment
        found = runs.page(schedule, before, _PAGE + 1)
        rows = [
            {
                "run": run,
                "due": rules.in_zone(run.due_at, schedule.timezone),
                "drift": _NEVER if run.drift is None else words.duration(run.drift),
                "url": self.result_url(run.result) if run.result else "",
                # The end of the id: calls sent within a minute have the same beginning.
                "short": f"…{run.result[-12:]}",
            }
            for run in found[:_PAGE]
        ]
        context = {
            "title": _("Runs of “%(name)s”") % {"name": schedule.name},
            "schedule": schedule,
            "rows": rows,
            "paged": "before" in request.GET,
            "older": found[_PAGE - 1].due_at.isoformat() if len(found) > _PAGE else "",
        }
        return self.page(request, "admin/jobs/schedule/runs.html", context)


def _lines(first: str, others: list[str]) -> SafeString:
    """One line, with smaller ones below it."""
    below = format_html_join("", '<span class="jobs-why">{}</span>', ((line,) for line in others))
    return format_html("{}{}", first, below)


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
        gettext_lazy("Missed and overlapping runs"),
        {"fields": (("misfire", "misfire_window"), "overlap", "jitter")},
    ),
    (
        gettext_lazy("Details"),
        {
            "fields": (
                *("description", "labels", "queue", ("exchange", "routing_key"), "priority"),
                *(("expires", "expires_from"), "headers", "options"),
            ),
            "classes": ("collapse",),
        },
    ),
)
