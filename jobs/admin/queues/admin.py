"""The pages of the queues: an overview that keeps itself up to date, one queue with its calls, and
a call of which the ledger has no row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from jobs import broker, conf, ledger, serialization
from jobs.admin import words
from jobs.admin.pages import PageAdmin
from jobs.admin.queues import calls
from jobs.admin.queues.calls import Chosen
from jobs.admin.queues.snapshot import snapshot
from jobs.admin.queues.verbs import (
    ALL_CALLS_VERBS,
    CALL_VERBS,
    QUEUE_VERBS,
    is_declared,
    may_go_to,
    move,
    move_all,
    pause_task,
    resume_task,
)
from jobs.admin.verbs import FAILURES, TROUBLE, Verb, address
from jobs.exceptions import BrokerUnavailable
from jobs.models import LABEL, Queues, TaskResult

#: Seconds after which the overview asks the broker again.
REFRESH = 1

#: Entries of the log on one page.
_ENTRIES = 100

#: Most calls that one press of a button acts on.
ALL = 1000


@admin.register(Queues)
class QueuesAdmin(PageAdmin):
    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, Callable[..., HttpResponse], str]] = [
            ("", self.changelist_view, "changelist"),
            ("live/", self.live_view, "live"),
            ("history/", self.log_view, "history"),
            ("queue/<path:queue>/", self.queue_view, "queue"),
            ("call/<path:queue>/<str:task_id>/", self.call_view, "call"),
            ("dead/<path:queue>/", self.dead_view, "dead"),
            ("letter/<path:queue>/<str:key>/", self.letter_view, "letter"),
            ("pause-task/", self.pause_task_view, "pause_task"),
        ]
        for verb in (*QUEUE_VERBS, resume_task):
            route = f"{verb.name.replace('_', '-')}/<path:name>/"
            pages.append((route, partial(self.act_view, verb=verb), verb.name))
        return [
            path(route, self.admin_site.admin_view(never_cache(view)), name=f"jobs_queues_{name}")
            for route, view, name in pages
        ]

    # ------------------------------------------------------------------ permissions

    def may_on_queues(self, request: HttpRequest) -> dict[str, bool]:
        """By the name of a verb."""
        return {verb.name: self.may(request, verb) for verb in QUEUE_VERBS}

    # ------------------------------------------------------------------ pages

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """All queues; the page fetches `live_view` again and again."""
        self._check_may_view(request)
        context = {
            "title": _("Queues"),
            "refresh": REFRESH,
            "may": self.may_on_queues(request),
            **snapshot(now=True),
            **(extra_context or {}),
        }
        return self.page(request, "admin/jobs/queues/overview.html", context)

    def live_view(self, request: HttpRequest) -> TemplateResponse:
        """The part of the page that changes."""
        self._check_may_view(request)
        request.current_app = self.admin_site.name
        context = {**snapshot(), "may": self.may_on_queues(request)}
        return TemplateResponse(request, "admin/jobs/queues/live.html", context)

    def queue_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        """One queue with its calls; a POST acts on them."""
        self._check_may_view(request, queue)
        tab = request.GET.get("tab", "")
        tab = tab if tab in calls.TABS else calls.WAITING
        if request.method == "POST":
            done = self._act_on_calls(request, queue, tab)
            return done or HttpResponseRedirect(self._url_of(queue, tab))
        context: dict[str, Any] = {"problem": ""}
        try:
            context |= calls.about(queue)
            context["page"] = calls.page_of(queue, tab, request.GET.get("p", ""))
        except TROUBLE as error:
            context = {"problem": str(error)}
        lists = [(name, label, self._url_of(queue, name)) for name, label in calls.TABS.items()]
        context |= {
            "title": _("Queue “%(queue)s”") % {"queue": queue},
            "queue": queue,
            "foreign": queue in conf.foreign_queues(),
            "tab": tab,
            "lists": lists,
            "here": self._url_of(queue, tab),
            "paged": "p" in request.GET,
            "may": self.may_on_queues(request),
            "verbs": [verb for verb in CALL_VERBS[tab] if self.may(request, verb)],
            "verbs_for_all": [verb for verb in ALL_CALLS_VERBS[tab] if self.may(request, verb)],
        }
        return self.page(request, "admin/jobs/queues/queue.html", context)

    def call_view(self, request: HttpRequest, queue: str, task_id: str) -> HttpResponse:
        """What the broker has of a call. When the ledger has a row of it, or it is a dead letter,
        this leads to the page of that."""
        self._check_may_view(request, queue)
        task_id, site = unquote(task_id), self.admin_site.name
        if "\0" in task_id:
            raise Http404("No id has a NUL.")
        rows = TaskResult.objects.using(ledger.alias())
        row_url = address(site, "taskresult_change", quote(task_id))
        may_see = row_url and request.user.has_perm(f"{LABEL}.view_taskresult")
        if may_see and rows.filter(pk=task_id).exists():
            return HttpResponseRedirect(row_url)
        try:
            tab, key = request.GET.get("tab", ""), request.GET.get("key", "")
            found = calls.find_at(queue, task_id, tab, key)
            found = found or calls.find(queue, task_id, calls.SEARCHED)
            letter = None if found else calls.dead_letter_of(queue, task_id, calls.SEARCHED)
            row = calls.row_of(found) if found else None
        except TROUBLE as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(self._url_of(queue))
        if letter and (url := address(site, "deadletters_letter", queue, letter.key)):
            return HttpResponseRedirect(url)
        verbs = CALL_VERBS[found.list] if found else ()
        context = {
            "title": _("Call %(id)s") % {"id": task_id},
            "queue": queue,
            "queue_url": self._url_of(queue),
            "id": task_id,
            "searched": calls.SEARCHED,
            "row": row,
            "here": self._url_of(queue, found.list) if found else "",
            "place": calls.TABS[found.list] if found else "",
            "verbs": [verb for verb in verbs if self.may(request, verb)],
        }
        if row and row.message:
            context["args"] = words.pretty(serialization.dumps(row.message.shown_args))
            context["kwargs"] = words.pretty(serialization.dumps(row.message.shown_kwargs))
        answer = self.page(request, "admin/jobs/queues/call.html", context)
        answer.status_code = 200 if found else 404
        return answer

    def dead_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        """The dead letters of a queue: the list of all, filtered."""
        self._check_may_view(request, queue)
        url = address(self.admin_site.name, "deadletters_changelist")
        if not url:
            raise Http404("This site has no page of the dead letters.")
        return HttpResponseRedirect(f"{url}?{urlencode({'queue': queue})}")

    def letter_view(self, request: HttpRequest, queue: str, key: str) -> HttpResponse:
        """Where links to a dead letter led before there was a list of all."""
        self._check_may_view(request, queue)
        url = address(self.admin_site.name, "deadletters_letter", queue, key)
        if not url:
            raise Http404("This site has no page of the dead letters.")
        return HttpResponseRedirect(url)

    def log_view(self, request: HttpRequest) -> HttpResponse:
        """What was done here to queues, tasks and dead letters, by whom and why; newest first."""
        self._check_may_view(request)
        entries = LogEntry.objects.filter(content_type=self.content_type()).order_by("-pk")
        before = request.GET.get("before", "")
        paged = before.isascii() and before.isdecimal() and len(before) <= 18
        if paged:
            entries = entries.filter(pk__lt=int(before))
        found = list(entries.select_related("user")[: _ENTRIES + 1])
        context = {
            "title": _("History"),
            "entries": found[:_ENTRIES],
            "older": found[_ENTRIES - 1].pk if len(found) > _ENTRIES else "",
            "paged": paged,
        }
        return self.page(request, "admin/jobs/queues/history.html", context)

    def _check_may_view(self, request: HttpRequest, queue: str | None = None) -> None:
        self.check_may_view(request)
        if queue is not None and not is_declared(queue):
            raise _not_declared(queue)

    def _url_of(self, queue: str, tab: str = calls.WAITING) -> str:
        url = reverse("admin:jobs_queues_queue", args=[queue], current_app=self.admin_site.name)
        return f"{url}?{urlencode({'tab': tab})}"

    # ------------------------------------------------------------------ acts

    def act_view(self, request: HttpRequest, verb: Verb, name: str = "") -> HttpResponse:
        """A page that says with GET what it will do to a queue or task, and does it with POST."""
        if not self.may(request, verb):
            raise PermissionDenied
        if not verb.fits(name):
            raise _not_declared(name)
        assert verb.question is not None
        try:
            if request.method != "POST":
                context = verb.question.context(name, request)
                return self.page(request, verb.question.template, context)
            said = str(verb.act(name, request))
            messages.success(request, said)
            self.log(request, verb, name, said)
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(request.path)
        except FAILURES as error:
            messages.error(request, str(error))
            if request.method == "POST" and isinstance(error, BrokerUnavailable):
                said = _("%(verb)s: not done, or in part only.") % {"verb": verb.title}
                self.log(request, verb, name, f"{said} {error}")
        return HttpResponseRedirect(self.url("changelist"))

    def pause_task_view(self, request: HttpRequest) -> HttpResponse:
        """The task is chosen on the page."""
        return self.act_view(request, pause_task, request.POST.get("task", ""))

    def _act_on_calls(self, request: HttpRequest, queue: str, tab: str) -> HttpResponse | None:
        """The question; None when the verb has acted on the chosen calls, or on all of a list."""
        action = request.POST.get("action", "")
        known = {verb.name: verb for verb in (*CALL_VERBS[tab], *ALL_CALLS_VERBS[tab])}
        allowed = [verb for verb in known.values() if self.may(request, verb)]
        if not allowed or (action in known and known[action] not in allowed):
            raise PermissionDenied
        if action not in known:
            return None
        verb, keys = known[action], request.POST.getlist("key")[: calls.PAGE]
        context: dict[str, Any] = {
            "queue": queue,
            "parent": _("Queue “%(queue)s”") % {"queue": queue},
            "back": self._url_of(queue, tab),
            "sent": [("action", action), *(("key", key) for key in keys)],
            "others": may_go_to(queue),
        }
        moves = verb in (move, move_all) and "confirmed" in request.POST
        if moves and request.POST.get("to", "") not in context["others"]:
            messages.error(request, _("Choose the queue to move them to."))
            return None
        try:
            if verb in ALL_CALLS_VERBS[tab]:
                return self._act_on_all(request, verb, tab, context)
            if not keys:
                messages.warning(request, _("Choose calls first."))
                return None
            return self.ask_or_act(request, verb, calls.chosen(queue, tab, keys), context)
        except TROUBLE as error:
            messages.error(request, str(error))
            return None

    def _act_on_all(
        self, request: HttpRequest, verb: Verb, tab: str, context: dict[str, Any]
    ) -> HttpResponse | None:
        """First ask; then act on the first calls of a list, at most `ALL`."""
        queue = context["queue"]
        found = calls.first_of(queue, tab, ALL + 1)
        if not found:
            return None
        said = _("There are more: the first %(n)s are done at once. Do it again for the others.")
        more = said % {"n": ALL} if len(found) > ALL else ""
        if "confirmed" not in request.POST:
            return self.ask(request, verb, min(len(found), ALL), {**context, "note": more})
        self.ask_or_act(request, verb, found[:ALL], context)
        if more:
            stats = broker.get().stats(queue)
            left = {calls.WAITING: stats.waiting, calls.DUE: stats.due}.get(tab, stats.in_flight)
            now = _("%(left)s are on the list now.") % {"left": f"{left:,}"}
            messages.warning(request, f"{more} {now}")
        return None

    # ------------------------------------------------------------------ the log

    def log(self, request: HttpRequest, verb: Verb, thing: Any, said: str) -> None:
        """Queues, tasks and calls have no row here. Their entries are of the type *queue*, with the
        queue's name, the task's, or the call's id as the id."""
        if isinstance(thing, Chosen):
            text = _("call %(id)s of queue “%(queue)s”")
            known, name = thing.id, text % {"id": thing.id or "?", "queue": thing.queue}
        elif verb in QUEUE_VERBS:
            known, name = thing, _("queue “%(queue)s”") % {"queue": thing}
        else:
            known, name = thing, _("task “%(task)s”") % {"task": thing}
        self.log_act(request, verb, known, name, said)


def _not_declared(queue: str) -> Http404:
    return Http404(f"Queue {queue!r} is not declared in JOBS['QUEUES'].")
