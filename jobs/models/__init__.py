"""The tables. Their querysets hold the verbs."""

from jobs.models.groups import TaskGroup
from jobs.models.results import Queues, TaskAttempt, TaskResult
from jobs.models.schedule_runs import ScheduleRun
from jobs.models.schedules import Misfire, Overlap, Schedule

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
