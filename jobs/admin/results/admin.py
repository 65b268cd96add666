"""The ledger in the admin: what was sent, what became of it, and why.

All of it stays fast on a ledger of many million rows. So nothing is counted, pages go
by key (see `jobs.admin.results.changelist`), and each question is one that an index answers:

=================  ===========================================================================
state, task        their indexes, each in the order of the list
sent               the range of ids made in that time, on the primary key
id                 the primary key, for a whole id as for its beginning
queue              no index: rows are read from the newest on until the page is full, which is
                   quick for a queue in use; together with *sent* it is quick for every queue
=================  ===========================================================================
"""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from jobs import broker, conf, ledger, registry
from jobs.admin import words
from jobs.admin.queues import calls
from jobs.admin.results import page, relations
from jobs.admin.results.changelist import (
    HEAD,
    QueueFilter,
    ResultList,
    SentFilter,
    TaskFilter,
)
from jobs.admin.results.verbs import VERBS
from jobs.admin.verbs import TROUBLE, VerbAdmin
from jobs.admin.words import badge, pre
from jobs.broker.base import Revocation
from jobs.models import TaskResult
from jobs.states import TERMINAL, State
from jobs.timing import clock

#: The beginning of a UUID. A shorter text is more likely meant as part of a name ("add").
_ID_START = re.compile(r"[0-9a-f]{8}[0-9a-f-]*", re.IGNORECASE)

#: Its message would go on without the row, and the worker would record it anew.
_NOT_ENDED = _(
    "Only results that have ended can be deleted: a call that waits or runs would go on, and be "
    "recorded again. Revoke it first, and delete it when it has ended."
)


@admin.register(TaskResult)
class ResultAdmin(VerbAdmin):
    """Results are looked at and, with the permissions, run again, revoked and deleted. Nobody adds
    or changes one by hand."""

    verbs = VERBS
    actions = ("delete_selected",)
    not_there = _("This result is not there any more.")
    list_display = (
        "state_badge",
        "task_and_id",
        "sent",
        "took",
        "call",
        "queue",
        "attempts",
        "worker",
    )
    list_display_links = ("task_and_id",)
    list_filter = ("state", TaskFilter, QueueFilter, SentFilter)
    list_per_page = 50
    # Sorted by id alone, newest first: any other order would sort the whole table.
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("id", "task")
    search_help_text = _("An id or its first 8 characters or more, or a part of a task's name.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ["jobs/admin.css"]}

    # ------------------------------------------------------------------ permissions

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskResult]:
        """From the database that is written to: nobody is to act on what a slow replica shows."""
        return super().get_queryset(request).using(ledger.alias())

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: TaskResult | None = None) -> bool:
        return False

    # ------------------------------------------------------------------ deleting

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        may = row is not None and self.has_delete_permission(request, row)
        if row is not None and may and row.state not in TERMINAL:
            messages.error(request, str(_NOT_ENDED))
            return HttpResponseRedirect(self.url("change", row))
        return super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: TaskResult) -> None:
        # It may have been run again meanwhile.
        self.get_queryset(request).filter(pk=obj.pk, state__in=TERMINAL).delete()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[TaskResult]) -> None:
        queryset.filter(state__in=TERMINAL).delete()

    @admin.action(permissions=["delete"], description=delete_selected.short_description)  # type: ignore[attr-defined]
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> HttpResponse | None:
        """Django's action, unless one of them has not ended."""
        if queryset.exclude(state__in=TERMINAL).exists():
            messages.error(request, str(_NOT_ENDED))
            return None
        answer: HttpResponse | None = delete_selected(self, request, queryset)
        return answer

    # ------------------------------------------------------------------ the list

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # A call may have no row before it ends.
        term, site = request.GET.get("q", "").strip(), self.admin_site.name
        if url := calls.page_of_search(request, term, site):
            return HttpResponseRedirect(url)
        # Django's own title, "Select result to change", doesn't fit.
        return super().changelist_view(
            request, {"title": gettext("Results"), **(extra_context or {})}
        )

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        if request.GET.get("state__exact") == State.RETRY:
            return _RETRIED
        return self.list_display

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ResultList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[TaskResult], search_term: str
    ) -> tuple[QuerySet[TaskResult], bool]:
        """One condition that one index answers, chosen by what the text looks like.

        Several joined by OR, or "contains" on a column, would read the whole table. So names are
        searched in memory, among the tasks that this code knows.
        """
        term = search_term.strip()
        if not term:
            return queryset, False
        if self.model._default_manager.filter(pk=term).exists():
            return queryset.filter(pk=term), False
        if _ID_START.fullmatch(term):
            # Every database can use an index for the range, with any collation: "g" comes after all
            # characters of a UUID. The prefix then makes it exact.
            start = term.lower()
            return queryset.filter(pk__gte=start, pk__lt=f"{start}g", pk__startswith=start), False
        known = [name for name in registry.tasks if term.lower() in name.lower()]
        return queryset.filter(task__in=known or [term]), False

    @admin.display(description=_("state"))
    def state_badge(self, row: TaskResult) -> SafeString:
        state = badge(row)
        if row.state not in (State.FAILURE, State.RETRY) or not row.error_type:
            return state
        why = [row.error_type.rpartition(".")[2]]
        if row.state == State.RETRY and row.eta:
            why.append(words.next_attempt(row, clock.now()))
        lines = format_html_join("", '<span class="jobs-why">{}</span>', ((line,) for line in why))
        return state + lines

    @admin.display(description=_("task"))
    def task_and_id(self, row: TaskResult) -> SafeString:
        # The end of the id: calls sent within a minute have the same beginning.
        short = row.pk if len(row.pk) <= 13 else f"…{row.pk[-12:]}"
        return format_html('{} <span class="jobs-id" title="{}">{}</span>', row.task, row.pk, short)

    @admin.display(description=_("arguments"))
    def call(self, row: Any) -> SafeString:
        text = words.call(row.args_head, row.kwargs_head, whole=HEAD)
        return format_html('<code class="jobs-call">{}</code>', text)

    @admin.display(description=_("next attempt"), empty_value="")
    def next_attempt(self, row: TaskResult) -> SafeString | None:
        if row.eta is None:
            return None
        away = words.away(row.eta, clock.now())
        return format_html('<span class="jobs-time">{}<br>{}</span>', words.moment(row.eta), away)

    @admin.display(description=_("error"))
    def why(self, row: Any) -> str:
        return words.error(row.error_type, row.error_head)

    @admin.display(description=_("sent"))
    def sent(self, row: TaskResult) -> SafeString:
        day, _space, time = words.moment(row.created_at).partition(" ")
        return format_html('<span class="jobs-time">{}<br>{}</span>', day, time)

    @admin.display(description=_("took"), empty_value="")
    def took(self, row: TaskResult) -> SafeString | None:
        spans = ((_("waited"), words.wait_time(row)), (_("ran"), words.run_time(row)))
        lines = [(label, words.duration(span)) for label, span in spans if span is not None]
        return format_html_join(SafeString("<br>"), '<span class="jobs-took">{} {}</span>', lines)

    # ------------------------------------------------------------------ one result

    def get_readonly_fields(
        self, request: HttpRequest, obj: TaskResult | None = None
    ) -> tuple[str, ...]:
        return tuple(name for _title, rows in _FIELDS for name in rows)

    def get_fieldsets(self, request: HttpRequest, obj: TaskResult | None = None) -> Any:
        left_out = set()
        if obj is not None:
            left_out |= set() if obj.state == State.SUCCESS else {"outcome"}
            left_out |= {name for name in ("error", "traceback") if not getattr(obj, name)}
            left_out |= set() if page.may_have_failed(obj) else {"failed_attempts"}
            left_out |= set() if page.progress_of(obj) else {"progress"}
            left_out |= relations.missing(obj)
        fieldsets = []
        for title, names in _FIELDS:
            fields = [n for n in names if n.removesuffix("_text") not in left_out]
            if fields:
                fieldsets.append((title, {"fields": fields}))
        return fieldsets

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """With the buttons and links that this person has for this result."""
        row: TaskResult | None = kwargs.get("obj")
        if row is not None:
            context["buttons"] = self.buttons(request, row)
            site, user = self.admin_site.name, request.user
            acts = ("view_queues", "manage_queues", "requeue_deadletters", "discard_deadletters")
            may_look = any(user.has_perm(f"jobs.{name}") for name in acts)
            given_up = row.state == State.FAILURE and row.error_type in words.DEAD
            if may_look and given_up and row.queue in conf.get().queues:
                context["dead_url"] = reverse(
                    "admin:jobs_queues_dead", args=[row.queue], current_app=site
                )
            may_pause = user.has_perm("jobs.manage_queues") or user.has_perm("jobs.pause_queues")
            if row.task in registry.tasks and may_pause:
                url = reverse("admin:jobs_queues_pause_task", current_app=site)
                context["pause_url"] = f"{url}?{urlencode({'task': row.task})}"
        return super().render_change_form(request, context, *args, **kwargs)

    def name_of(self, row: TaskResult) -> SafeString:
        return format_html('{} <span class="jobs-id">{}</span>', row.task, row.pk)

    @admin.display(description=_("state"))
    def in_words(self, row: TaskResult) -> SafeString:
        text = words.sentence(row, clock.now())
        if row.state not in TERMINAL:
            # The row doesn't say that its task will not run any more once a worker sees to it.
            try:
                (revocation,) = broker.get().revoked(row.queue, [row.pk])
            except TROUBLE:
                revocation = Revocation.NONE
            if revocation is not Revocation.NONE:
                revoked = gettext("It is revoked: a worker will end it when its turn comes.")
                text = f"{text} {revoked}"
        return format_html('{} <span class="jobs-sentence">{}</span>', badge(row), text)

    @admin.display(description=_("progress"), empty_value="")
    def progress_text(self, row: TaskResult) -> SafeString | None:
        said = page.progress_of(row)
        return page.progress_bar(said) if said else None

    @admin.display(description=_("task"))
    def task_link(self, row: TaskResult) -> SafeString:
        url = reverse("admin:jobs_taskresult_changelist", current_app=self.admin_site.name)
        query = urlencode({"task": row.task})
        more = gettext("all results of this task")
        return format_html(
            '{} <a class="jobs-more" href="{}?{}">{}</a>', row.task, url, query, more
        )

    @admin.display(description=_("arguments"))
    def args_text(self, row: TaskResult) -> SafeString:
        return pre(words.pretty(row.args))

    @admin.display(description=_("keyword arguments"))
    def kwargs_text(self, row: TaskResult) -> SafeString:
        return pre(words.pretty(row.kwargs))

    @admin.display(description=_("returned"))
    def outcome_text(self, row: TaskResult) -> SafeString | str:
        if row.result is None:
            return gettext("Not kept: the task ignores its result.")
        return pre(words.pretty(row.result))

    @admin.display(description=_("error"))
    def error_text(self, row: TaskResult) -> SafeString:
        return pre(f"{row.error_type}: {row.error}" if row.error_type else row.error)

    @admin.display(description=_("traceback"))
    def traceback_text(self, row: TaskResult) -> SafeString:
        return pre(row.traceback)

    @admin.display(description=_("in order"))
    def failed_attempts_text(self, row: TaskResult) -> SafeString:
        return page.failed_attempts(row)

    @admin.display(description=_("sent by, or follows"))
    def parent_text(self, row: TaskResult) -> SafeString:
        return relations.parent(row, self.admin_site.name)

    @admin.display(description=_("group"))
    def group_text(self, row: TaskResult) -> SafeString:
        return relations.group(row, self.admin_site.name)

    @admin.display(description=_("sent, or followed by"))
    def children_text(self, row: TaskResult) -> SafeString:
        return relations.children(row, self.admin_site.name)

    @admin.display(description=_("times"))
    def timeline(self, row: TaskResult) -> SafeString:
        lines = words.timeline(row, clock.now())
        cells = format_html_join(
            "", '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>', lines
        )
        return format_html('<table class="jobs-timeline"><tbody>{}</tbody></table>', cells)


#: The page of one result: titles, each with the fields under it.
_FIELDS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (
        None,
        ("in_words", "progress_text", "task_link", "id", "queue", "worker", "attempts", "timeline"),
    ),
    (_("Call"), ("args_text", "kwargs_text")),
    (_("Outcome"), ("outcome_text", "error_text", "traceback_text")),
    (_("Failed attempts"), ("failed_attempts_text",)),
    (_("Workflow"), ("parent_text", "group_text", "children_text")),
)

#: The columns when the list is filtered by RETRY: which attempt, why, and when again.
_RETRIED = ("task_and_id", "next_attempt", "attempts", "why", "call", "queue")
