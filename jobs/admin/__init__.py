"""The operator's view, in Django's admin."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ModelAdmin
from django.db.models import Model

from jobs.admin.dashboard.admin import DashboardAdmin
from jobs.admin.deadletters.admin import DeadLettersAdmin
from jobs.admin.errors.admin import ErrorsAdmin
from jobs.admin.queues.admin import QueuesAdmin
from jobs.admin.results.admin import ResultAdmin
from jobs.admin.schedules.admin import ScheduleAdmin
from jobs.admin.tasks.admin import TasksAdmin
from jobs.admin.workers.admin import WorkersAdmin
from jobs.models import (
    Dashboard,
    DeadLetters,
    Errors,
    Queues,
    Schedule,
    TaskResult,
    Tasks,
    Workers,
)

#: Every page with its class: what to register in an `AdminSite` of your own.
ADMINS: dict[type[Model], type[ModelAdmin[Any]]] = {
    Dashboard: DashboardAdmin,
    Queues: QueuesAdmin,
    TaskResult: ResultAdmin,
    Errors: ErrorsAdmin,
    DeadLetters: DeadLettersAdmin,
    Tasks: TasksAdmin,
    Workers: WorkersAdmin,
    Schedule: ScheduleAdmin,
}

__all__ = ["ADMINS"]
