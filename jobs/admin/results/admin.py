"""The ledger in the admin: what was sent, what became of it, and why.

All of it stays fast on a ledger of many million rows. So counts stop at a limit, pages go by key
(see `jobs.admin.results.changelist`), and each query either uses an index or reads only the newest
rows (see `jobs.control.selecting`).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, AdminForm
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache

from jobs import broker, conf, ledger, registry
from jobs.admin import words
from jobs.admin.queues import calls
from jobs.admin.results import (
    editing,
    export,
    graph,
    live,
    many,
    origin,
    page,
    relations,
    times,
    tracebacks,
)
from jobs.admin.results.changelist import (
    HEAD,
    DueFilter,
    QueueFilter,
    ResultList,
    SentFilter,
    StateFilter,
    TaskFilter,
    TypedFilter,
)
from jobs.admin.results.verbs import VERBS, edit
from jobs.admin.verbs import FAILURES, TROUBLE, VerbAdmin, address, why
from jobs.admin.words import badge, pre
from jobs.broker.base import Revocation
from jobs.control import selecting
from jobs.models import LABEL, TaskResult
from jobs.states import TERMINAL, State
from jobs.timing import clock

#: Seconds after which the page of a call that has not ended asks again.
REFRESH = 2

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
    actions = ("delete_selected", "export_csv", "export_json")
    not_there = _("This result is not there any more.")
    list_display = (
        "state_badge",
        "task_and_id",
        "sent",
        "took",
        "where",
    )
    list_display_links = ("task_and_id",)
    list_filter = (StateFilter, DueFilter, SentFilter, TypedFilter, QueueFilter, TaskFilter)
    list_per_page = 50
    # Sorted by id alone, newest first: any other order would sort the whole table.
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("id", "task")
    search_help_text = _(
        "An id or its first 8 characters or more, a part of a task's name, a label, or a part of "
        "an error's text."
    )
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ["jobs/admin.css"]}

    # ------------------------------------------------------------------ permissions

    def get_urls(self) -> list[URLPattern]:
        views = {"live": self.live_view, "edit": self.edit_view}
        return [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(never_cache(view)),
                name=f"jobs_taskresult_{name}",
            )
            for name, view in views.items()
        ] + super().get_urls()

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """The row, with its present state if its call runs."""
        row = super().get_object(request, object_id, from_field)
        if row is None:
            # A hook says which rows a person may see, and there is none to ask it about.
            return None if conf.get().admin_queryset else live.without_row(object_id)
        relations.look_as(row, request)
        live.overlay([row])
        return row

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponse:
        """What Django answers to the address of an object that isn't there. A call that waits or is
        due later may have no row yet: then its page is that of its queue."""
        url = calls.page_of_id(request, unquote(object_id), self.admin_site.name)
        if url:
            return HttpResponseRedirect(url)
        # The stubs don't have it, nor has it a public name.
        answer: HttpResponse = super()._get_obj_does_not_exist_redirect(  # type: ignore[misc]
            request, opts, object_id
        )
        return answer

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskResult]:
        """From the database that is written to: nobody is to act on what a slow replica shows."""
        return selecting.seen_by(request, super().get_queryset(request).using(ledger.alias()))

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
        if request.GET.get("due"):
            return _DUE
        if request.GET.get("state__exact") == State.RETRY:
            return _RETRIED
        return self.list_display

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ResultList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        # Django would apply any condition on a column, of which an act on all that match knows
        # nothing.
        return lookup in _PARAMETERS

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[TaskResult], search_term: str
    ) -> tuple[QuerySet[TaskResult], bool]:
        """`ResultList` searches, together with the filters."""
        return queryset, False

    # ------------------------------------------------------------------ all that match

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[TaskResult], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        action = request.POST.get("action", "")
        if request.POST.get("select_across") != "1" or action not in many.ON_ALL:
            return super().response_action(request, queryset, *args, **kwargs)
        verb, act = many.ON_ALL[action]
        if not self.may(request, verb):
            raise PermissionDenied
        back = HttpResponseRedirect(request.get_full_path())
        try:
            selection = self.selection(request)
        except ValueError as error:
            messages.error(request, str(error))
            return back
        if "confirmed" in request.POST and "in_background" in request.POST:
            many.start(self, request, verb, act, selection)
            return back
        rows, count = many.few(request, selection, act)
        if rows is None:
            chosen = [("action", action), ("select_across", "1")]
            # Django passes over an action without a chosen row.
            chosen.append((ACTION_CHECKBOX_NAME, request.POST[ACTION_CHECKBOX_NAME]))
            return many.question(self, request, verb, count, chosen, request.get_full_path())
        if not rows:
            text = gettext("This can’t be done to any of the results that match.")
            messages.warning(request, text)
            return back
        if action == "delete_selected":
            ended = self.get_queryset(request).filter(pk__in=[row.pk for row in rows])
            return self.delete_selected(request, ended) or back
        sent = [("action", action), *(("_selected_action", row.pk) for row in rows)]
        context = {"back": request.get_full_path(), "sent": sent}
        return self.ask_or_act(request, verb, rows, context) or back

    def selection(self, request: HttpRequest) -> selecting.Selection:
        """What the list shows, but nothing that was sent after somebody was asked about it. Raises
        `ValueError` when a filter means nothing."""
        found = selecting.read(request.GET)
        asked = selecting.moment(request.POST.get("until", ""))
        if asked is None:
            return found
        return replace(found, until=min(found.until or asked, asked))

    @admin.action(permissions=["view"], description=_("Export as CSV"))
    def export_csv(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> HttpResponseBase | None:
        rows = self._exported(request, queryset)
        return None if rows is None else export.as_csv(request, rows)

    @admin.action(permissions=["view"], description=_("Export as JSON"))
    def export_json(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> HttpResponseBase | None:
        rows = self._exported(request, queryset)
        return None if rows is None else export.as_json(request, rows)

    def _exported(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> QuerySet[TaskResult] | None:
        """The chosen rows, or all that match and were sent until now; None when a filter means
        nothing."""
        rows = self.get_queryset(request).using(selecting.listed().db)
        if request.POST.get("select_across") != "1":
            chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
            many.log(request, None, gettext("Exported: %(n)d results.") % {"n": len(chosen)})
            return rows.filter(pk__in=chosen)
        now = clock.now()
        try:
            selection = selecting.read(request.GET)
        except ValueError as error:
            messages.error(request, str(error))
            return None
        selection = replace(selection, until=min(selection.until or now, now))
        many.log(request, None, gettext("Exported: %(which)s.") % {"which": selection})
        return selection.all_of(rows)

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
    def task_and_id(self, row: Any) -> SafeString:
        # The end of the id: calls sent within a minute have the same beginning.
        short = row.pk if len(row.pk) <= 13 else f"…{row.pk[-12:]}"
        label = format_html(' <span class="jobs-label">{}</span>', row.label) if row.label else ""
        return format_html(
            '{}{} <code class="jobs-call">{}</code> <span class="jobs-id" title="{}">{}</span>',
            row.task,
            label,
            words.call(row.args_head, row.kwargs_head, whole=HEAD),
            row.pk,
            short,
        )

    @admin.display(description=_("next attempt"), empty_value="")
    def next_attempt(self, row: TaskResult) -> SafeString | None:
        if row.eta is None:
            return None
        away = words.away(row.eta, clock.now())
        return format_html('<span class="jobs-time">{} <br>{}</span>', words.moment(row.eta), away)

    @admin.display(description=_("due"), empty_value="")
    def due(self, row: TaskResult) -> SafeString | None:
        return self.next_attempt(row)

    @admin.display(description=_("attempts"), empty_value="")
    def tried(self, row: TaskResult) -> SafeString | None:
        if not row.attempts:
            return None
        # On a telephone the column has no head.
        return format_html('<span class="jobs-narrow">{}</span> {}', _("attempts:"), row.attempts)

    @admin.display(description=_("error"), empty_value="")
    def why(self, row: Any) -> str | None:
        if not (row.error_type or row.error_head):
            return None  # it has not run yet
        return words.error(row.error_type, row.error_head)

    @admin.display(description=_("sent"))
    def sent(self, row: TaskResult) -> SafeString:
        at = timezone.localtime(row.created_at)
        return format_html(
            '<time class="jobs-time" datetime="{}">{} <br>{}</time>',
            at.isoformat(),
            date_format(at, "Y-m-d"),
            date_format(at, "H:i:s T"),
        )

    @admin.display(description=_("queue, worker"))
    def where(self, row: TaskResult) -> SafeString:
        return format_html(
            '{} <span class="jobs-id jobs-cut" title="{}">{}</span>',
            row.queue,
            row.worker,
            row.worker,
        )

    @admin.display(description=_("took"), empty_value="")
    def took(self, row: TaskResult) -> SafeString | None:
        waited, ran, verb = words.wait_time(row), words.run_time(row), _("ran")
        if row.state == State.STARTED and row.started_at is not None:
            verb, ran = pgettext_lazy("call", "runs"), clock.now() - row.started_at
        spans = ((_("waited"), waited), (verb, ran))
        lines = [(label, words.duration(span)) for label, span in spans if span is not None]
        if row.attempts > 1:
            lines.append((_("attempts:"), str(row.attempts)))
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
            left_out |= set() if page.has_former_attempts(obj) else {"failed_attempts"}
            left_out |= set() if self._acts(obj) else {"acts"}
            left_out |= set() if page.progress_of(obj) else {"progress"}
            left_out |= relations.missing(obj)
            left_out |= set() if self._has_workflow(obj) else {"graph"}
            left_out |= set() if self.sender_text(obj) else {"sender"}
            left_out |= set() if obj.label else {"label"}
            left_out |= set() if origin.tenant(obj) else {"tenant"}
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
            context["tabs"] = self.tabs(request)
            context["buttons"] = self.buttons(request, row)
            if row.state not in TERMINAL:
                context["live_url"] = f"{self.url('live', row)}?{urlencode({'was': row.state})}"
                context["refresh"] = REFRESH
            site, user = self.admin_site.name, request.user
            acts = ("view_queues", "manage_queues", "requeue_deadletters", "discard_deadletters")
            may_look = any(user.has_perm(f"{LABEL}.{name}") for name in acts)
            given_up = row.state == State.FAILURE and row.error_type in words.DEAD
            may_look = may_look and bool(address(site, "deadletters_changelist"))
            if may_look and given_up and row.queue in conf.get().queues:
                context["dead_url"] = address(site, "queues_dead", row.queue)
            may_pause = any(
                user.has_perm(f"{LABEL}.{act}") for act in ("manage_queues", "pause_queues")
            )
            url = address(site, "queues_pause_task")
            if url and row.task in registry.tasks and may_pause:
                context["pause_url"] = f"{url}?{urlencode({'task': row.task})}"
        return super().render_change_form(request, context, *args, **kwargs)

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of the page that changes while the call has not ended."""
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        if row is None or row.state != request.GET.get("was"):
            # Buttons, outcome and workflow are others now: the page is to be loaded anew.
            return HttpResponse(headers={"HX-Refresh": "true"})
        fieldsets = self.get_fieldsets(request, row)[:1]
        form = self.get_form(request, row, change=True)(instance=row)
        names = self.get_readonly_fields(request, row)
        shown = AdminForm(form, fieldsets, {}, names, model_admin=self)
        return TemplateResponse(
            request, "admin/jobs/taskresult/live.html", {"fieldset": next(iter(shown))}
        )

    def buttons(self, request: HttpRequest, row: TaskResult) -> list[dict[str, Any]]:
        found = super().buttons(request, row)
        if self.may(request, edit) and edit.fits(row):
            url = self.url("edit", row)
            found.insert(1, {"verb": edit, "label": edit.label, "url": url, "method": "get"})
        return found

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The form for other arguments; sent, it makes a new call."""
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, row) or not self.may(request, edit):
            raise PermissionDenied
        if row is None:
            messages.warning(request, str(self.not_there))
            return HttpResponseRedirect(self.url("changelist"))
        back = self.url("change", row)
        if not edit.fits(row):
            messages.error(request, str(edit.left_out))
            return HttpResponseRedirect(back)
        form = editing.ArgumentsForm(row, request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                sent = editing.send(row, form.cleaned_data["args"], form.cleaned_data["kwargs"])
            except (*FAILURES, *editing.REFUSED) as error:
                form.add_error(None, words.writable(str(error)))
            else:
                self._log_edit(request, row, sent.id)
                messages.success(request, str(edit.done))
                return HttpResponseRedirect(self.url("change", TaskResult(id=sent.id)))
        context = {
            "title": edit.title,
            "verb": edit,
            "form": form,
            "back": back,
            "original": row,
            "name": self.name_of(row),
        }
        return self.page(request, "admin/jobs/taskresult/edit.html", context)

    def _log_edit(self, request: HttpRequest, row: TaskResult, task_id: str) -> None:
        """Write to the log of both calls; without the arguments, which may be secret."""
        reason = why(request)
        said = gettext("Run with other arguments, as %(id)s.") % {"id": task_id}
        new = gettext("Sent with other arguments, in place of %(id)s.") % {"id": row.pk}
        if reason:
            said = gettext("%(said)s Reason: %(why)s") % {"said": said, "why": reason}
            new = gettext("%(said)s Reason: %(why)s") % {"said": new, "why": reason}
        self.log_change(request, row, said)
        self.log_addition(request, TaskResult(id=task_id, task=row.task), new)

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
        if again := page.last_run_again(row):
            text = f"{text} {again}"
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

    @admin.display(description=_("label"))
    def label_text(self, row: TaskResult) -> SafeString:
        url = reverse("admin:jobs_taskresult_changelist", current_app=self.admin_site.name)
        query, more = urlencode({"label": row.label}), gettext("all results with this label")
        return format_html(
            '<span class="jobs-label">{}</span> <a class="jobs-more" href="{}?{}">{}</a>',
            row.label,
            url,
            query,
            more,
        )

    @admin.display(description=_("tenant"))
    def tenant_text(self, row: TaskResult) -> str:
        return origin.tenant(row)

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
        if not row.error_type:
            return pre(row.error)
        url = reverse("admin:jobs_taskresult_changelist", current_app=self.admin_site.name)
        query = urlencode({"error_type": row.error_type})
        return format_html(
            '{}<p><a href="{}?{}">{}</a></p>{}',
            pre(f"{row.error_type}: {row.error}"),
            url,
            query,
            gettext("errors like this"),
            relations.culprits(row, self.admin_site.name),
        )

    @admin.display(description=_("traceback"))
    def traceback_text(self, row: TaskResult) -> SafeString:
        return tracebacks.shown(row.traceback)

    @admin.display(description=_("sent by"))
    def sender_text(self, row: TaskResult) -> SafeString:
        kept: dict[str, Any] = vars(row)
        if "_sender" not in kept:
            kept["_sender"] = origin.sender(row, self.admin_site.name, self._acts(row))
        found: SafeString = kept["_sender"]
        return found

    def _acts(self, row: TaskResult) -> list[LogEntry]:
        kept: dict[str, Any] = vars(row)
        if "_acts" not in kept:
            kept["_acts"] = origin.acts_on(row)
        found: list[LogEntry] = kept["_acts"]
        return found

    @admin.display(description=_("done by people"))
    def acts_text(self, row: TaskResult) -> SafeString:
        return origin.acts_in_words(self._acts(row))

    def _has_workflow(self, row: TaskResult) -> bool:
        alone = row.root_id is None and row.group_id is None and not relations.of(row).children
        # What follows a call that waits or runs is in its message.
        return not (alone and row.state in TERMINAL) and len(graph.of(row).nodes) > 1

    @admin.display(description=_("drawn"))
    def graph_text(self, row: TaskResult) -> SafeString:
        return graph.drawn(row, self.admin_site.name)

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
        return times.table(row, page.attempts(row)[-page.SHOWN :], clock.now())


#: The page of one result: titles, each with the fields under it.
_FIELDS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (
        None,
        (
            *("in_words", "progress_text", "task_link", "label_text", "id", "queue"),
            *("tenant_text", "worker", "attempts", "sender_text", "timeline"),
        ),
    ),
    (_("Call"), ("args_text", "kwargs_text")),
    (_("Outcome"), ("outcome_text", "error_text", "traceback_text")),
    (_("Former attempts"), ("failed_attempts_text",)),
    (_("History"), ("acts_text",)),
    (_("Workflow"), ("graph_text", "parent_text", "group_text", "children_text")),
)

#: The filters of the list, by their names in its address.
_PARAMETERS = {*(field.name for field in fields(selecting.Selection)), "state__exact", "sent"}
_PARAMETERS -= {"ids"}

#: The columns when the list is filtered by RETRY: which attempt, why, and when again.
_RETRIED = ("task_and_id", "next_attempt", "tried", "why", "queue")
#: The columns when it shows what is due next.
_DUE = ("task_and_id", "due", "tried", "why", "queue")
