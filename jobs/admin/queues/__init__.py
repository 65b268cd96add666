"""The queues in the admin, with their workers and dead letters, as the broker has them now."""

from jobs.admin.queues import admin

__all__ = ["admin"]
