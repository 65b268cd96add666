"""The queues in the admin, as the broker has them at this moment, and their dead letters.

The views are here; what they show is gathered in `jobs.admin.survey`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache

from jobs import broker, control
from jobs.admin.queue_verbs import QueueVerbs, check_declared
from jobs.admin.survey import TROUBLE, keys_from, letter_page, letter_rows, survey
from jobs.admin.task_verbs import TaskVerbs
from jobs.models import Queues

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Queues]
else:
    _ModelAdmin = admin.ModelAdmin

#: Seconds between two looks of the page at the broker.
REFRESH = 2

#: What a dead letter's key looks like. Any other, which only a hand-made address has, is that of
#: no letter; Redis would call it an error.
_KEY = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")

#: Dead letters on one page.
_PAGE = 50

#: Most dead letters that "all" puts back or discards with one press of the button.
ALL = 1000

#: What is done to dead letters, by the value of the button.
_VERBS = {"requeue": control.requeue, "discard": control.discard}


@admin.register(Queues)
class QueuesAdmin(QueueVerbs, TaskVerbs, _ModelAdmin):
    class Media:
        css = {"all": ["jobs/admin.css"]}

    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, Callable[..., HttpResponse], str]] = [
            ("", self.changelist_view, "changelist"),
            ("live/", self.live_view, "live"),
            ("dead/<path:queue>/", self.dead_view, "dead"),
            ("letter/<path:queue>/<str:key>/", self.letter_view, "letter"),
            ("pause/<path:queue>/", self.pause_view, "pause"),
            ("resume/<path:queue>/", self.resume_view, "resume"),
            ("purge/<path:queue>/", self.purge_view, "purge"),
            ("pause-task/", self.pause_task_view, "pause_task"),
            ("resume-task/<path:task>/", self.resume_task_view, "resume_task"),
        ]
        return [
            path(route, self.admin_site.admin_view(never_cache(view)), name=f"jobs_queues_{name}")
            for route, view, name in pages
        ]

    # ------------------------------------------------------------------ permissions

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("jobs.view_queues") or self.may_manage(request)

    def may_manage(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.manage_queues")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # ------------------------------------------------------------------ pages

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """All queues; the page fetches `live_view` again and again."""
        self._check_may_view(request)
        context = {
            "title": _("Queues"),
            "refresh": REFRESH,
            **self._survey(request),
            **(extra_context or {}),
        }
        return self._page(request, "overview", context)

    def live_view(self, request: HttpRequest) -> TemplateResponse:
        """The part of the page that changes."""
        self._check_may_view(request)
        return TemplateResponse(request, "admin/jobs/queues/live.html", self._survey(request))

    def dead_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        """The dead letters of a queue, newest first; POST acts on the chosen ones."""
        self._check_may_view(request)
        check_declared(queue)
        if request.method == "POST":
            return self._act(request, queue)
        before = request.GET.get("before", "")
        paged = bool(_KEY.fullmatch(before))
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
            "may_manage": self.may_manage(request),
        }
        return self._page(request, "dead", context)

    def letter_view(self, request: HttpRequest, queue: str, key: str) -> HttpResponse:
        """One dead letter, whole."""
        self._check_may_view(request)
        check_declared(queue)
        try:
            letter = broker.get().dead_letter_at(queue, key) if _KEY.fullmatch(key) else None
        except TROUBLE as error:
            messages.error(request, str(error))
            return self._to_dead(queue)
        if letter is None:
            messages.warning(request, _("This dead letter is not there any more."))
            return self._to_dead(queue)
        context = {
            "title": _("Dead letter of queue “%(queue)s”") % {"queue": queue},
            "queue": queue,
            "may_manage": self.may_manage(request),
            **letter_page(queue, letter),
        }
        return self._page(request, "letter", context)

    # ------------------------------------------------------------------ actions

    def _act(self, request: HttpRequest, queue: str) -> HttpResponse:
        if not self.may_manage(request):
            raise PermissionDenied
        name, all_, rest = request.POST.get("action", "").partition("_all")
        verb = _VERBS.get(name)
        if verb is None or rest:
            return self._to_dead(queue)
        if all_:
            return self._act_on_all(request, queue, name, verb)
        keys = request.POST.getlist("key")
        if not keys:
            messages.warning(request, _("Choose dead letters first."))
        elif name == "discard" and "confirmed" not in request.POST:
            context = {"title": _("Are you sure?"), "queue": queue, "keys": keys}
            return self._page(request, "discard", context)
        else:
            self._say(request, name, self._each(request, verb, queue, keys))
        return self._to_dead(queue)

    def _act_on_all(
        self, request: HttpRequest, queue: str, name: str, verb: Callable[[str, str], bool]
    ) -> HttpResponse:
        """Asks first; then does it to those that were there when it asked, up to `ALL`."""
        newest = request.POST.get("newest", "")
        try:
            if "confirmed" not in request.POST or not _KEY.fullmatch(newest):
                return self._ask_for_all(request, queue, name)
            keys = keys_from(queue, newest, ALL + 1)
        except TROUBLE as error:
            messages.error(request, str(error))
            return self._to_dead(queue)
        # The oldest first: so they were sent, and so they are run again.
        self._say(request, name, self._each(request, verb, queue, keys[:ALL][::-1]))
        if len(keys) > ALL:
            said = _("There are more: %(n)d are done at once. Do it again for the others.")
            messages.warning(request, said % {"n": ALL})
        return self._to_dead(queue)

    def _ask_for_all(self, request: HttpRequest, queue: str, name: str) -> HttpResponse:
        letters, count = broker.get().dead_letters(queue, 1), broker.get().stats(queue).dead
        if not letters:
            return self._to_dead(queue)
        context = {
            "title": _("Are you sure?"),
            "queue": queue,
            "verb": name,
            "newest": letters[0].key,
            "count": count,
            "at_once": min(count, ALL),
        }
        return self._page(request, "all", context)

    def _each(
        self,
        request: HttpRequest,
        verb: Callable[[str, str], bool],
        queue: str,
        keys: Iterable[str],
    ) -> int:
        """How many there were to act on; says how many were gone, and what went wrong."""
        done = gone = 0
        try:
            for key in keys:
                if _KEY.fullmatch(key) and verb(queue, key):
                    done += 1
                else:
                    gone += 1
        except TROUBLE as error:
            messages.error(request, str(error))
        if gone:
            said = ngettext("%(n)d was not there any more.", "%(n)d were not there any more.", gone)
            messages.warning(request, said % {"n": gone})
        return done

    def _say(self, request: HttpRequest, name: str, done: int) -> None:
        if not done:
            return
        if name == "discard":
            said = ngettext("%(n)d message discarded.", "%(n)d messages discarded.", done)
        else:
            said = ngettext(
                "%(n)d message is back on the queue.",
                "%(n)d messages are back on the queue.",
                done,
            )
        messages.success(request, said % {"n": done})

    # ------------------------------------------------------------------ small things

    def _survey(self, request: HttpRequest) -> dict[str, Any]:
        return {**survey(), "may_manage": self.may_manage(request)}

    def _check_may_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.admin_site.name
        whole = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            **context,
        }
        return TemplateResponse(request, f"admin/jobs/queues/{name}.html", whole)

    def _to_dead(self, queue: str) -> HttpResponseRedirect:
        return HttpResponseRedirect(
            reverse("admin:jobs_queues_dead", args=[queue], current_app=self.admin_site.name)
        )
