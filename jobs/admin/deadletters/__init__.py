"""Messages that can't be run, of all queues."""

from jobs.admin.deadletters import admin

__all__ = ["admin"]
