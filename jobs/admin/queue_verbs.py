"""Pages on which a whole queue is paused, resumed or purged. Each says first what it will do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import broker, conf, control
from jobs.admin.asking import LONG, Asking, reason
from jobs.admin.survey import PauseRow


class QueueVerbs(Asking):
    """The part of the queues' admin that changes whole queues."""

    def pause_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        def pause() -> str:
            control.pause(queue, by=request.user.get_username(), why=reason(request))
            return _("Queue “%(queue)s” is paused.") % {"queue": queue}

        title = _("Pause queue “%(queue)s”") % {"queue": queue}
        context = {"title": title, "longest": LONG}
        return self._ask_or_do_to(request, queue, "pause", lambda: context, pause)

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

        return self._ask_or_do_to(request, queue, "resume", ask, resume)

    def purge_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        def purge() -> str:
            done = control.purge(queue, due="due" in request.POST)
            said = ngettext("%(n)d message deleted.", "%(n)d messages deleted.", done)
            return said % {"n": done}

        def ask() -> dict[str, Any]:
            title = _("Purge queue “%(queue)s”") % {"queue": queue}
            return {"title": title, "stats": broker.get().stats(queue)}

        return self._ask_or_do_to(request, queue, "purge", ask, purge)

    def _ask_or_do_to(
        self,
        request: HttpRequest,
        queue: str,
        page: str,
        ask: Callable[[], dict[str, Any]],
        do: Callable[[], str],
    ) -> HttpResponse:
        self._check_may_manage(request)
        check_declared(queue)
        return self._ask_or_do(request, page, lambda: {"queue": queue, **ask()}, do)


def check_declared(queue: str) -> None:
    if queue not in conf.get().queues:
        raise Http404(f"Queue {queue!r} is not declared in JOBS['QUEUES'].")
