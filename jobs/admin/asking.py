"""Pages that say first what they will do, and then do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from jobs.admin.survey import TROUBLE
from jobs.exceptions import UnknownTask

#: Characters of a reason.
LONG = 500


class Asking:
    """The part of the queues' admin that asks before it changes something."""

    if TYPE_CHECKING:
        admin_site: Any

        def may_manage(self, request: HttpRequest) -> bool: ...

        def _page(
            self, request: HttpRequest, name: str, context: dict[str, Any]
        ) -> HttpResponse: ...

    def _check_may_manage(self, request: HttpRequest) -> None:
        if not self.may_manage(request):
            raise PermissionDenied

    def _ask_or_do(
        self,
        request: HttpRequest,
        page: str,
        ask: Callable[[], dict[str, Any]],
        do: Callable[[], str],
    ) -> HttpResponse:
        """The page that asks, with what ``ask`` gives; or, posted, what ``do`` says it did."""
        self._check_may_manage(request)
        try:
            if request.method != "POST":
                return self._page(request, page, ask())
            messages.success(request, do())
        except (*TROUBLE, UnknownTask) as error:
            messages.error(request, str(error))
        where = reverse("admin:jobs_queues_changelist", current_app=self.admin_site.name)
        return HttpResponseRedirect(where)


def reason(request: HttpRequest) -> str:
    """Why it is done, as the page was told."""
    return request.POST.get("why", "").strip()[:LONG]
