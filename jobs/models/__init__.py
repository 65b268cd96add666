"""The tables. Their querysets hold the verbs."""

from jobs.models.groups import TaskGroup
from jobs.models.results import Queues, TaskAttempt, TaskResult
from jobs.models.schedules import Misfire, Overlap, Schedule, ScheduleRun

__all__ = [
    "Misfire",
    "Overlap",
    "Queues",
    "Schedule",
    "ScheduleRun",
    "TaskAttempt",
    "TaskGroup",
    "TaskResult",
]
