"""The workers, what they do, and how the recent ones ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from jobs import conf
from jobs.admin.pages import PageAdmin, may_look
from jobs.admin.results.verbs import revoke
from jobs.admin.verbs import FAILURES, Verb
from jobs.admin.workers.listing import listed, one
from jobs.admin.workers.verbs import VERBS
from jobs.exceptions import UnknownWorker
from jobs.models import LABEL, Workers

#: Seconds after which the pages ask the broker again.
REFRESH = 2

#: Entries of the log on a worker's page.
_ENTRIES = 20


@admin.register(Workers)
class WorkersAdmin(PageAdmin):
    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, Callable[..., HttpResponse], str]] = [
            ("", self.changelist_view, "changelist"),
            ("live/", self.live_view, "live"),
            ("worker/<path:name>/", self.worker_view, "worker"),
            ("live-worker/<path:name>/", self.live_worker_view, "live_worker"),
        ]
        for verb in VERBS:
            view = partial(self.act_view, verb=verb)
            pages.append((f"{verb.name}/<path:name>/", view, verb.name))
        return [
            path(route, self.admin_site.admin_view(never_cache(view)), name=f"jobs_workers_{name}")
            for route, view, name in pages
        ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or self._may_control(request)

    def _may_control(self, request: HttpRequest) -> bool:
        return any(self.may(request, verb) for verb in VERBS)

    def _may_revoke(self, request: HttpRequest) -> bool:
        """Whether this person may end a call from here, by the verb of results."""
        needed = (f"{LABEL}.view_taskresult", f"{LABEL}.{revoke.permission}")
        return request.user.has_perms(needed)

    # ------------------------------------------------------------------ pages

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """All workers; the page fetches `live_view` again and again."""
        self.check_may_view(request)
        context = {
            "title": _("Workers"),
            "refresh": REFRESH,
            "may_revoke": self._may_revoke(request),
            **listed(),
            **(extra_context or {}),
        }
        return self.page(request, "admin/jobs/workers/list.html", context)

    def live_view(self, request: HttpRequest) -> TemplateResponse:
        """The part of the page that changes."""
        self.check_may_view(request)
        context = {**listed(), "may_revoke": self._may_revoke(request)}
        return TemplateResponse(request, "admin/jobs/workers/live.html", context)

    def worker_view(self, request: HttpRequest, name: str) -> TemplateResponse:
        """One worker, what it answers, and what was asked of it before."""
        self.check_may_view(request)
        entries = LogEntry.objects.filter(
            content_type=self.content_type(), object_id=name.replace("\0", "")
        )
        context = {
            "title": _("Worker “%(worker)s”") % {"worker": name},
            "refresh": REFRESH,
            "buttons": [
                {"verb": verb, "url": self._url_of(verb.name, name)}
                for verb in VERBS
                if self.may(request, verb)
            ],
            "entries": entries.order_by("-pk").select_related("user")[:_ENTRIES],
            **self._one(request, name),
        }
        return self.page(request, "admin/jobs/workers/worker.html", context)

    def live_worker_view(self, request: HttpRequest, name: str) -> TemplateResponse:
        """The part of a worker's page that changes."""
        self.check_may_view(request)
        context = self._one(request, name)
        return TemplateResponse(request, "admin/jobs/workers/live_worker.html", context)

    def _one(self, request: HttpRequest, name: str) -> dict[str, Any]:
        queue, command = request.GET.get("queue", ""), request.GET.get("command", "")
        if not self._may_control(request):
            command = ""  # stacks are for those who may ask for them
        found = one(name, queue, command)
        shown = {"queue": queue, "command": command} if found["asked"] else {}
        return {
            **found,
            "may_look": may_look(request),
            "query": f"?{urlencode(shown)}" if shown else "",
            "may_revoke": self._may_revoke(request),
        }

    # ------------------------------------------------------------------ acts

    def act_view(self, request: HttpRequest, verb: Verb, name: str) -> HttpResponse:
        """Ask something of a worker, after a question if the verb has one."""
        if not self.may(request, verb):
            raise PermissionDenied
        back = self._url_of("worker", name)
        # A GET comes from somebody who had to sign in again on the way here.
        if request.method != "POST":
            return HttpResponseRedirect(back)
        values = {
            "worker": name,
            "grace": conf.get().grace_seconds,
            "queue": request.POST.get("queue", ""),
        }
        try:
            if verb.question and "confirmed" not in request.POST:
                parent = _("Worker “%(worker)s”") % values
                asked = {**values, **verb.question.context(name, request)}
                return self.ask(request, verb, 1, {**asked, "back": back, "parent": parent})
            queue, command = verb.act(name, request).rsplit(":", 1)
        except UnknownWorker:
            messages.warning(request, _("Worker “%(worker)s” doesn’t report any more.") % values)
            return HttpResponseRedirect(self.url("changelist"))
        except FAILURES as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(back)
        said = str(verb.done) % values
        messages.success(request, said)
        self.log_act(request, verb, name, _("worker “%(worker)s”") % values, said)
        return HttpResponseRedirect(f"{back}?{urlencode({'queue': queue, 'command': command})}")

    def _url_of(self, view: str, name: str) -> str:
        return reverse(f"admin:jobs_workers_{view}", args=[name], current_app=self.admin_site.name)
