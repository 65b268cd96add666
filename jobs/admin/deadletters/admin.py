"""Messages that can't be run, of all queues."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.cache import never_cache

from jobs.admin.pages import PageAdmin
from jobs.models import DeadLetters


@admin.register(DeadLetters)
class DeadLettersAdmin(PageAdmin):
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(never_cache(self.changelist_view))
        return [path("", view, name="jobs_deadletters_changelist")]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        self.check_may_view(request)
        context = {
            "title": str(self.opts.verbose_name_plural).capitalize(),
            **(extra_context or {}),
        }
        return self.page(request, "admin/jobs/base.html", context)
