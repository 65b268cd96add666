"""The pages of the queues: an overview that keeps itself up to date, and the dead letters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from jobs import broker
from jobs.admin.pages import PageAdmin
from jobs.admin.queues.snapshot import keys_from, letter_page, letter_rows, snapshot
from jobs.admin.queues.verbs import (
    ALL_LETTERS_VERBS,
    KEY,
    LETTER_VERBS,
    QUEUE_VERBS,
    Letter,
    is_declared,
    pause_task,
    resume_task,
)
from jobs.admin.verbs import FAILURES, TROUBLE, Verb
from jobs.exceptions import BrokerUnavailable
from jobs.models import Queues

#: Seconds after which the overview asks the broker again.
REFRESH = 1

#: Dead letters on one page.
_PAGE = 50

#: Entries of the log on one page.
_ENTRIES = 100

#: Most dead letters that one press of a button puts back or discards.
ALL = 1000


@admin.register(Queues)
class QueuesAdmin(PageAdmin):
    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, Callable[..., HttpResponse], str]] = [
            ("", self.changelist_view, "changelist"),
            ("live/", self.live_view, "live"),
            ("history/", self.log_view, "history"),
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

    def dead_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        """The dead letters of a queue, newest first; a POST acts on them."""
        self._check_may_view(request, queue)
        if request.method == "POST":
            return self._act_on_letters(request, queue) or self._to_dead(queue)
        before = request.GET.get("before", "")
        paged = bool(KEY.fullmatch(before))
        problem, letters = "", []
        try:
            letters = broker.get().dead_letters(queue, _PAGE + 1, before if paged else None)
        except TROUBLE as error:
            problem = str(error)
        context = {
            "title": _("Dead letters of queue “%(queue)s”") % {"queue": queue},
            "queue": queue,
            "problem": problem,
            "rows": letter_rows(queue, letters[:_PAGE]),
            "older": letters[_PAGE - 1].key if len(letters) > _PAGE else "",
            "paged": paged,
            "verbs": [verb for verb in LETTER_VERBS if self.may(request, verb)],
            "verbs_for_all": [verb for verb in ALL_LETTERS_VERBS if self.may(request, verb)],
        }
        return self.page(request, "admin/jobs/queues/dead.html", context)

    def letter_view(self, request: HttpRequest, queue: str, key: str) -> HttpResponse:
        """One dead letter, whole."""
        self._check_may_view(request, queue)
        try:
            letter = broker.get().dead_letter_at(queue, key) if KEY.fullmatch(key) else None
        except TROUBLE as error:
            messages.error(request, str(error))
            return self._to_dead(queue)
        if letter is None:
            messages.warning(request, _("This dead letter is not there any more."))
            return self._to_dead(queue)
        context = {
            "title": _("Dead letter of queue “%(queue)s”") % {"queue": queue},
            "queue": queue,
            "verbs": [verb for verb in LETTER_VERBS if self.may(request, verb)],
            **letter_page(queue, letter),
        }
        return self.page(request, "admin/jobs/queues/letter.html", context)

    def log_view(self, request: HttpRequest) -> HttpResponse:
        """What was done here to queues, tasks and dead letters, by whom and why; newest first."""
        self._check_may_view(request)
        entries = LogEntry.objects.filter(content_type=self.content_type()).order_by("-pk")
        before = request.GET.get("before", "")
        paged = bool(KEY.fullmatch(before)) and "-" not in before
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

    def _to_dead(self, queue: str) -> HttpResponseRedirect:
        return HttpResponseRedirect(
            reverse("admin:jobs_queues_dead", args=[queue], current_app=self.admin_site.name)
        )

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
        except FAILURES as error:
            messages.error(request, str(error))
            if request.method == "POST" and isinstance(error, BrokerUnavailable):
                said = _("%(verb)s: not done, or in part only.") % {"verb": verb.title}
                self.log(request, verb, name, f"{said} {error}")
        return HttpResponseRedirect(self.url("changelist"))

    def pause_task_view(self, request: HttpRequest) -> HttpResponse:
        """The task is chosen on the page."""
        return self.act_view(request, pause_task, request.POST.get("task", ""))

    def _act_on_letters(self, request: HttpRequest, queue: str) -> HttpResponse | None:
        """The question; None when the verb has acted on the chosen letters, or on all of them."""
        action = request.POST.get("action", "")
        known = {verb.name: verb for verb in (*LETTER_VERBS, *ALL_LETTERS_VERBS)}
        allowed = [verb for verb in known.values() if self.may(request, verb)]
        if not allowed or (action in known and known[action] not in allowed):
            raise PermissionDenied
        context: dict[str, Any] = {
            "queue": queue,
            "parent": _("Dead letters of queue “%(queue)s”") % {"queue": queue},
            "back": request.path,
            "sent": [("action", action)],
        }
        for verb in ALL_LETTERS_VERBS:
            if verb.name == action:
                return self._act_on_all(request, verb, context)
        for verb in LETTER_VERBS:
            if verb.name == action:
                keys = request.POST.getlist("key")
                if not keys:
                    messages.warning(request, _("Choose dead letters first."))
                context["sent"] += [("key", key) for key in keys]
                return self.ask_or_act(request, verb, [Letter(queue, k) for k in keys], context)
        return None

    def _act_on_all(
        self, request: HttpRequest, verb: Verb, context: dict[str, Any]
    ) -> HttpResponse | None:
        """First ask; then act on the letters that were there at that time, at most `ALL`."""
        queue, newest = context["queue"], request.POST.get("newest", "")
        try:
            if "confirmed" in request.POST and KEY.fullmatch(newest):
                keys = keys_from(queue, newest, ALL + 1)
                # The oldest first: the order in which they were sent, and are to run again.
                self.act(request, verb, [Letter(queue, key) for key in keys[:ALL][::-1]])
                if len(keys) > ALL:
                    said = _("There are more: %(n)d are done at once. Do it again for the others.")
                    messages.warning(request, said % {"n": ALL})
                return None
            letters, count = broker.get().dead_letters(queue, 1), broker.get().stats(queue).dead
        except TROUBLE as error:
            messages.error(request, str(error))
            return None
        if not letters:
            return None
        context["sent"] += [("newest", letters[0].key)]
        if count > ALL:
            context["note"] = _(
                "There are %(count)s dead letters: the newest %(at_once)s are done at once."
            ) % {"count": count, "at_once": ALL}
        return self.ask(request, verb, min(count, ALL), context)

    def name_of(self, thing: Letter) -> str:
        return ""  # a key says nothing to a person

    # ------------------------------------------------------------------ the log

    def log(self, request: HttpRequest, verb: Verb, thing: Any, said: str) -> None:
        """Queues, tasks and dead letters have no row. Their entries are of the type *queue*, with
        the queue's name, the task's, or the id of the letter's call as the id."""
        if isinstance(thing, Letter):
            text = _("dead letter %(id)s of queue “%(queue)s”")
            known, name = said, text % {"id": said, "queue": thing.queue}
            said = verb.done % {"n": 1}
        elif verb in QUEUE_VERBS:
            known, name = thing, _("queue “%(queue)s”") % {"queue": thing}
        else:
            known, name = thing, _("task “%(task)s”") % {"task": thing}
        self.log_act(request, verb, known, name, said)


def _not_declared(queue: str) -> Http404:
    return Http404(f"Queue {queue!r} is not declared in JOBS['QUEUES'].")
