"""The tables. Their querysets hold the verbs."""

from jobs.models.groups import TaskGroup
from jobs.models.pages import Dashboard, DeadLetters, Errors, Queues, Tasks, Workers
from jobs.models.results import KnownError, TaskAttempt, TaskResult
from jobs.models.schedules import Misfire, Overlap, Schedule, ScheduleRun

#: This app's label: "jobs", unless a project has given it one of its own.
LABEL = TaskResult._meta.app_label

__all__ = [
    "LABEL",
    "Dashboard",
    "DeadLetters",
    "Errors",
    "KnownError",
    "Misfire",
    "Overlap",
    "Queues",
    "Schedule",
    "ScheduleRun",
    "TaskAttempt",
    "TaskGroup",
    "TaskResult",
    "Tasks",
    "Workers",
]
