"""The demonstration's rows in the admin, to look at and to delete."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from jobsite.demo.models import SentMail, Subscriber, Upload


class ReadOnly:
    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Upload)
class UploadAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["file_name", "stage", "lines", "created_at", "finished_at"]
    list_filter = ["stage"]
    exclude = ["content"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).defer("content", "summary")


class SentMailInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]
    model = SentMail


@admin.register(Subscriber)
class SubscriberAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    # Adding one here sends the welcome too: the task hangs on the model, not on a page.
    list_display = ["name", "email", "created_at"]
    readonly_fields = ["created_at"]
    inlines = [SentMailInline]
