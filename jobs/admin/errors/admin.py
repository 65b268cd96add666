"""Errors of the ledger, grouped."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from jobs.admin.errors import groups
from jobs.admin.errors.groups import RANGES, Group, find
from jobs.admin.errors.verbs import VERBS, mark, unmark
from jobs.admin.pages import PageAdmin
from jobs.admin.results import many
from jobs.admin.results.verbs import again
from jobs.admin.verbs import Verb, address
from jobs.control import selecting
from jobs.models import LABEL, Errors, TaskResult
from jobs.states import State


@admin.register(Errors)
class ErrorsAdmin(PageAdmin):
    """Whoever may see results may see their errors."""

    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, Any, str]] = [
            ("", self.changelist_view, "changelist"),
            ("retry/", require_POST(self.retry_view), "retry"),
            *(
                (f"{verb.name}/", require_POST(partial(self.mark_view, verb=verb)), verb.name)
                for verb in VERBS
            ),
        ]
        return [
            path(route, self.admin_site.admin_view(never_cache(view)), name=f"jobs_errors_{name}")
            for route, view, name in pages
        ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"{LABEL}.view_taskresult")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        self.check_may_view(request)
        name = request.GET.get("range", "")
        name = name if name in RANGES else "hour"
        found = find(selecting.seen_by(request, selecting.listed()), RANGES[name])
        results = address(self.admin_site.name, "taskresult_changelist")
        since = found.since.isoformat()

        def shown(group: Group) -> dict[str, Any]:
            query = {"state__exact": State.FAILURE, "task": group.task, "since": since}
            if group.error_type:
                query["error_type"] = group.error_type
            return {"group": group, "url": f"{results}?{urlencode(query)}" if results else ""}

        labels = {"hour": _("Last hour"), "day": _("Last 24 hours"), "week": _("Last 7 days")}
        context = {
            "title": _("Errors"),
            "found": found,
            "tables": [[shown(group) for group in part] for part in (found.groups, found.known)],
            "ranges": [(one, labels[one], one == name) for one in RANGES],
            "range": name,
            "since": since,
            "looked_at": number_format(groups.LOOKED_AT, force_grouping=True),
            "may_retry": self.may(request, again),
            "may_mark": self.may(request, mark),
            "mark": mark,
            "unmark": unmark,
            **(extra_context or {}),
        }
        return self.page(request, "admin/jobs/errors/overview.html", context)

    # ------------------------------------------------------------------ acts

    def retry_view(self, request: HttpRequest) -> HttpResponse:
        """Run all calls of a group again that were sent since the page began."""
        self._check_may(request, again)
        group, back = self._group(request), self._back(request)
        since, until = request.POST.get("since", ""), request.POST.get("until", "")
        values = {"state": State.FAILURE, "task": group.task, "error_type": group.error_type}
        try:
            selection = selecting.read({**values, "since": since, "until": until})
        except ValueError as error:
            raise BadRequest(str(error)) from error
        if "confirmed" in request.POST and "in_background" in request.POST:
            many.start(self, request, again, "retry", selection)
            return HttpResponseRedirect(back)
        sent = [("task", group.task), ("error_type", group.error_type), ("since", since)]
        sent.append(("range", request.POST.get("range", "")))
        rows, count = many.few(request, selection, "retry")
        if rows is None:
            return many.question(self, request, again, count, sent, back)
        if not rows:
            messages.warning(request, _("None of these calls can be run again."))
            return HttpResponseRedirect(back)
        context = {"back": back, "sent": sent}
        return self.ask_or_act(request, again, rows, context) or HttpResponseRedirect(back)

    def mark_view(self, request: HttpRequest, verb: Verb) -> HttpResponse:
        self._check_may(request, verb)
        group, back = self._group(request), self._back(request)
        sent = [("task", group.task), ("error_type", group.error_type)]
        sent.append(("range", request.POST.get("range", "")))
        context = {"back": back, "sent": sent}
        return self.ask_or_act(request, verb, [group], context) or HttpResponseRedirect(back)

    def _check_may(self, request: HttpRequest, verb: Verb) -> None:
        self.check_may_view(request)
        if not self.may(request, verb):
            raise PermissionDenied

    def _group(self, request: HttpRequest) -> Group:
        """The group that the request names."""
        group = Group(request.POST.get("task", ""), request.POST.get("error_type", ""))
        for name in (group.task, group.error_type):
            if "\0" in name or len(name) > 255:
                raise BadRequest("no name of a task or of an error")
        if not group.task:
            raise BadRequest("a task is missing")
        return group

    def _back(self, request: HttpRequest) -> str:
        name = request.POST.get("range", "")
        return self.url("changelist") + (f"?range={name}" if name in RANGES else "")

    def name_of(self, thing: Group | TaskResult) -> SafeString:
        if isinstance(thing, Group):
            return format_html("{}: {}", thing.error_type or thing.name, thing.task)
        return format_html('{} <span class="jobs-id">{}</span>', thing.task, thing.pk)

    def log(self, request: HttpRequest, verb: Verb, thing: Group | TaskResult, said: str) -> None:
        if isinstance(thing, TaskResult):
            super().log(request, verb, thing, said)
        else:
            key = f"{thing.error_type} {thing.task}"
            self.log_act(request, verb, key, str(thing), said)
