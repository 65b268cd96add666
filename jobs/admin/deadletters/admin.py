"""Messages that can't be run, of all queues."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from jobs import broker, conf
from jobs.admin.deadletters import letters
from jobs.admin.deadletters.letters import Filter, Place
from jobs.admin.deadletters.verbs import ALL_LETTERS_VERBS, KEY, LETTER_VERBS, Letter
from jobs.admin.pages import PageAdmin
from jobs.admin.queues.snapshot import LetterRow, letter_page, letter_rows
from jobs.admin.verbs import TROUBLE, Verb
from jobs.broker.base import DeadLetter
from jobs.models import LABEL, DeadLetters, Queues

#: Dead letters on one page.
_PAGE = 50

#: Most dead letters that one press of a button puts back or discards.
ALL = 1000


@admin.register(DeadLetters)
class DeadLettersAdmin(PageAdmin):
    def get_urls(self) -> list[URLPattern]:
        pages = (
            ("", self.changelist_view, "changelist"),
            ("letter/<path:queue>/<str:key>/", self.letter_view, "letter"),
        )
        return [
            path(
                route,
                self.admin_site.admin_view(never_cache(view)),
                name=f"jobs_deadletters_{name}",
            )
            for route, view, name in pages
        ]

    # ------------------------------------------------------------------ pages

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The dead letters that fit the filter, newest first; a POST acts on them."""
        self.check_may_view(request)
        wanted = _filter_of(request)
        if request.method == "POST":
            return self._act_on_letters(request, wanted) or self._to_list(wanted)
        before = request.GET.get("before", "")
        after = letters.place_of(before)
        problem, page, groups = "", letters.Page([], None, cut=False), []
        try:
            page = letters.page_of(wanted, after, _PAGE)
            if after is None and not wanted.of_messages:
                groups = letters.groups_of(wanted.queue)
        except TROUBLE as error:
            problem = str(error)
        context = {
            "title": _("Dead letters"),
            "may_see_results": request.user.has_perm(f"{LABEL}.view_taskresult"),
            "problem": problem,
            "wanted": wanted,
            "query": _query(wanted),
            "queues": sorted(conf.get().queues),
            "rows": _rows(page.letters),
            "groups": groups,
            "grouped": letters.GROUPED,
            "older": _query(wanted, before=str(page.after)) if page.after else "",
            "cut": page.cut,
            "looked": letters.LOOKED,
            "paged": after is not None,
            "verbs": [verb for verb in LETTER_VERBS if self.may(request, verb)],
            "verbs_for_all": [verb for verb in ALL_LETTERS_VERBS if self.may(request, verb)],
            **(extra_context or {}),
        }
        return self.page(request, "admin/jobs/deadletters/list.html", context)

    def letter_view(self, request: HttpRequest, queue: str, key: str) -> HttpResponse:
        """One dead letter, whole."""
        self.check_may_view(request)
        if queue not in conf.get().queues:
            raise Http404(f"Queue {queue!r} is not declared in JOBS['QUEUES'].")
        try:
            letter = broker.get().dead_letter_at(queue, key) if KEY.fullmatch(key) else None
        except TROUBLE as error:
            messages.error(request, str(error))
            return self._to_list(Filter(queue))
        if letter is None:
            messages.warning(request, _("This dead letter is not there any more."))
            return self._to_list(Filter(queue))
        context = {
            "title": _("Dead letter of queue “%(queue)s”") % {"queue": queue},
            "may_see_results": request.user.has_perm(f"{LABEL}.view_taskresult"),
            "queue": queue,
            "query": _query(Filter(queue)),
            "verbs": [verb for verb in LETTER_VERBS if self.may(request, verb)],
            **letter_page(queue, letter),
        }
        return self.page(request, "admin/jobs/deadletters/letter.html", context)

    def _to_list(self, wanted: Filter) -> HttpResponseRedirect:
        return HttpResponseRedirect(self.url("changelist") + _query(wanted))

    # ------------------------------------------------------------------ acts

    def _act_on_letters(self, request: HttpRequest, wanted: Filter) -> HttpResponse | None:
        """The question; None when the verb has acted on the chosen letters, or on all that fit."""
        action = request.POST.get("action", "")
        known = {verb.name: verb for verb in (*LETTER_VERBS, *ALL_LETTERS_VERBS)}
        allowed = [verb for verb in known.values() if self.may(request, verb)]
        if not allowed or (action in known and known[action] not in allowed):
            raise PermissionDenied
        context: dict[str, Any] = {
            "back": self.url("changelist") + _query(wanted),
            "sent": [("action", action)],
        }
        for verb in ALL_LETTERS_VERBS:
            if verb.name == action:
                return self._act_on_all(request, verb, wanted, context)
        for verb in LETTER_VERBS:
            if verb.name == action:
                places = request.POST.getlist("key")
                found = [place for place in map(letters.place_of, places) if place]
                if not found:
                    messages.warning(request, _("Choose dead letters first."))
                context["sent"] += [("key", str(place)) for place in found]
                chosen = [Letter(place.queue, place.key) for place in found]
                return self.ask_or_act(request, verb, chosen, context)
        return None

    def _act_on_all(
        self, request: HttpRequest, verb: Verb, wanted: Filter, context: dict[str, Any]
    ) -> HttpResponse | None:
        """First ask; then act on the letters that were there at that time, at most `ALL`."""
        newest = letters.place_of(request.POST.get("newest", ""))
        confirmed = "confirmed" in request.POST and newest is not None
        try:
            found = letters.matching(wanted, newest if confirmed else None, ALL + 1)
            if not found:
                if wanted.of_messages:
                    said = _("None of the newest %(n)s dead letters fits.")
                    messages.warning(request, said % {"n": f"{letters.LOOKED:,}"})
                return None
            if not confirmed:
                return self._ask_for_all(request, verb, wanted, found, context)
            # The oldest first: the order in which they were sent, and are to run again.
            self.act(request, verb, found[:ALL][::-1])
            if len(found) > ALL:
                left = "" if wanted.of_messages else f"{letters.count_of(wanted.queue):,}"
                said = _("There are more: %(n)d are done at once. Do it again for the others.")
                left_over = _("%(left)s are left.") % {"left": left} if left else ""
                messages.warning(request, f"{said % {'n': ALL}} {left_over}".strip())
        except TROUBLE as error:
            messages.error(request, str(error))
        return None

    def _ask_for_all(
        self,
        request: HttpRequest,
        verb: Verb,
        wanted: Filter,
        found: list[Letter],
        context: dict[str, Any],
    ) -> HttpResponse:
        context["sent"] += [("newest", str(Place(found[0].key, found[0].queue)))]
        notes = []
        for label, value in zip((_("Queue"), _("Reason"), _("Task")), wanted, strict=True):
            if value:
                notes.append(f"{label}: {value}.")
        if len(found) > ALL and wanted.of_messages:
            notes.append(_("There are more: the newest %(n)s are done at once.") % {"n": ALL})
        elif len(found) > ALL:
            said = _("There are %(count)s dead letters: the newest %(at_once)s are done at once.")
            count = letters.count_of(wanted.queue)
            notes.append(said % {"count": count, "at_once": ALL})
        context["note"] = " ".join(notes)
        return self.ask(request, verb, min(len(found), ALL), context)

    def name_of(self, thing: Letter) -> str:
        return ""  # a key says nothing to a person

    # ------------------------------------------------------------------ the log

    def log(self, request: HttpRequest, verb: Verb, thing: Letter, said: str) -> None:
        """A letter's entries have the id of its call, since its key says nothing to a person."""
        text = _("dead letter %(id)s of queue “%(queue)s”")
        name = text % {"id": said, "queue": thing.queue}
        self.log_act(request, verb, said, name, verb.done % {"n": 1})

    def content_type(self) -> ContentType:
        # One history for all that is done to queues and what they hold.
        return ContentType.objects.get_for_model(Queues, for_concrete_model=False)


def _filter_of(request: HttpRequest) -> Filter:
    wanted = Filter(*(request.GET.get(name, "") for name in Filter._fields))
    if wanted.queue and wanted.queue not in conf.get().queues:
        raise Http404(f"Queue {wanted.queue!r} is not declared in JOBS['QUEUES'].")
    return wanted


def _query(wanted: Filter, **more: str) -> str:
    values = {name: value for name, value in wanted._asdict().items() if value} | more
    return f"?{urlencode(values)}" if values else ""


def _rows(found: list[tuple[str, DeadLetter]]) -> list[tuple[str, LetterRow]]:
    return [(queue, row) for (queue, _), row in zip(found, letter_rows(found), strict=True)]
