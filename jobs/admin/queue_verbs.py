"""Pages on which a whole queue is paused, resumed or purged. Each says first what it will do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import broker, conf, control
from jobs.admin.survey import TROUBLE, PauseRow

#: Characters of a reason.
LONG = 500


class QueueVerbs:
    """The part of the queues' admin that changes whole queues."""

    if TYPE_CHECKING:
        admin_site: Any

        def may_manage(self, request: HttpRequest) -> bool: ...

        def _page(
            self, request: HttpRequest, name: str, context: dict[str, Any]
        ) -> HttpResponse: ...

    def pause_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        def pause() -> str:
            why = request.POST.get("why", "").strip()[:LONG]
            control.pause(queue, by=request.user.get_username(), why=why)
            return _("Queue “%(queue)s” is paused.") % {"queue": queue}

        title = _("Pause queue “%(queue)s”") % {"queue": queue}
        context = {"title": title, "longest": LONG}
        return self._ask_or_do(request, queue, "pause", lambda: context, pause)

    def resume_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        def resume() -> str:
            if control.resume(queue):
                return _("Queue “%(queue)s” is resumed.") % {"queue": queue}
            return _("Queue “%(queue)s” was not paused.") % {"queue": queue}

        def ask() -> dict[str, Any]:
            pause = control.paused().get(queue)
            return {
                "title": _("Resume queue “%(queue)s”") % {"queue": queue},
                "paused": PauseRow(queue, pause) if pause else None,
                "waiting": broker.get().stats(queue).waiting,
            }

        return self._ask_or_do(request, queue, "resume", ask, resume)

    def purge_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        def purge() -> str:
            done = control.purge(queue, due="due" in request.POST)
            said = ngettext("%(n)d message deleted.", "%(n)d messages deleted.", done)
            return said % {"n": done}

        def ask() -> dict[str, Any]:
            title = _("Purge queue “%(queue)s”") % {"queue": queue}
            return {"title": title, "stats": broker.get().stats(queue)}

        return self._ask_or_do(request, queue, "purge", ask, purge)

    def _ask_or_do(
        self,
        request: HttpRequest,
        queue: str,
        page: str,
        ask: Callable[[], dict[str, Any]],
        do: Callable[[], str],
    ) -> HttpResponse:
        """The page that asks, with what ``ask`` gives; or, posted, what ``do`` says it did."""
        if not self.may_manage(request):
            raise PermissionDenied
        if queue not in conf.get().queues:
            raise Http404(f"Queue {queue!r} is not declared in JOBS['QUEUES'].")
        try:
            if request.method != "POST":
                return self._page(request, page, {"queue": queue, **ask()})
            messages.success(request, do())
        except TROUBLE as error:
            messages.error(request, str(error))
        where = reverse("admin:jobs_queues_changelist", current_app=self.admin_site.name)
        return HttpResponseRedirect(where)
