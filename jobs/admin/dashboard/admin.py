"""The first page: what needs a person, and the numbers of the last hour, day or week."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from jobs.admin.dashboard import metrics, overview, stream
from jobs.admin.pages import PageAdmin
from jobs.models import Dashboard

#: Seconds after which the page asks again, when it isn't told that something has changed; and when
#: it is told, in case that stops.
REFRESH, REFRESH_TOLD = 1, 10

#: Seconds after which the page asks again for the numbers of the charts.
REFRESH_NUMBERS = 10


@admin.register(Dashboard)
class DashboardAdmin(PageAdmin):
    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, Callable[..., Any], str]] = [
            ("", self.changelist_view, "changelist"),
            ("live/", self.live_view, "live"),
            ("numbers/", self.numbers_view, "numbers"),
            ("stream/", self.stream_view, "stream"),
            ("metrics.json", metrics.metrics_json, "metrics"),
        ]
        return [
            path(
                route, self.admin_site.admin_view(never_cache(view)), name=f"jobs_dashboard_{name}"
            )
            for route, view, name in pages
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """The page; it fetches `live_view` and `numbers_view` again and again."""
        self.check_may_view(request)
        chosen = overview.chosen(request)
        streams = isinstance(request, ASGIRequest)
        context = {
            "title": _("Dashboard"),
            "refresh": REFRESH_TOLD if streams else REFRESH,
            "refresh_numbers": REFRESH_NUMBERS,
            "streams": streams,
            "asked": urlencode(chosen.asked),
            **overview.choices(chosen),
            **overview.live(self.admin_site, request, chosen, now=True),
            **overview.numbers(chosen),
            **(extra_context or {}),
        }
        return self.page(request, "admin/jobs/dashboard/overview.html", context)

    def live_view(self, request: HttpRequest) -> TemplateResponse:
        """What needs a person, and the queues."""
        self.check_may_view(request)
        context = overview.live(self.admin_site, request, overview.chosen(request))
        return TemplateResponse(request, "admin/jobs/dashboard/live.html", context)

    def numbers_view(self, request: HttpRequest) -> TemplateResponse:
        """The numbers of the charts, and their sums."""
        self.check_may_view(request)
        context = overview.numbers(overview.chosen(request))
        return TemplateResponse(request, "admin/jobs/dashboard/numbers.html", context)

    def stream_view(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """Events that say when the page is to ask again (Server-Sent Events)."""
        self.check_may_view(request)
        if not isinstance(request, ASGIRequest):
            # It would hold a thread of the server for as long as the page is open.
            raise Http404("This server can't stream.")
        response = StreamingHttpResponse(
            stream.changes(request, self.may_still_look), content_type="text/event-stream"
        )
        response["X-Accel-Buffering"] = "no"  # nginx would hold the events back
        return response

    def may_still_look(self, request: HttpRequest) -> bool:
        return self.admin_site.has_permission(request) and self.has_view_permission(request)
