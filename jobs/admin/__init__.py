"""The operator's view, in Django's admin."""

from jobs.admin import queues, results, schedules

__all__ = ["queues", "results", "schedules"]
