"""Every registered task."""

from jobs.admin.tasks import admin

__all__ = ["admin"]
