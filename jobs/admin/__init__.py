"""The operator's view, in Django's admin."""

from jobs.admin import (
    dashboard,
    deadletters,
    errors,
    queues,
    results,
    schedules,
    tasks,
    workers,
)

__all__ = [
    "dashboard",
    "deadletters",
    "errors",
    "queues",
    "results",
    "schedules",
    "tasks",
    "workers",
]
