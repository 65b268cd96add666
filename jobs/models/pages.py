"""The pages of the admin that show no table: what they show is on the broker, or counted from the
ledger. Each is a proxy, for its place in the admin's index and for its permissions."""

from __future__ import annotations

from typing import ClassVar

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from jobs.models.results import TaskResult


class Dashboard(TaskResult):
    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("dashboard")
        # Django sorts an app's pages by this name; this page is to be the first.
        verbose_name_plural = _("dashboard")


class Queues(TaskResult):
    class Meta:
        proxy = True
        default_permissions = ()
        permissions: ClassVar = [
            ("view_queues", _("Can view dashboard, queues, tasks, workers and dead letters")),
            # All of the following. It was the only one, so whoever has it keeps every act.
            ("manage_queues", _("Can do everything with queues and dead letters")),
            ("pause_queues", _("Can pause and resume queues and tasks")),
            ("purge_queues", _("Can purge queues and delete waiting calls")),
            ("move_calls", _("Can move waiting calls to another queue")),
            ("hasten_calls", _("Can run calls now that are due later")),
            ("requeue_deadletters", _("Can put dead letters back on their queues")),
            ("discard_deadletters", _("Can discard dead letters")),
        ]
        verbose_name = _("queue")
        verbose_name_plural = _("queues")


class DeadLetters(TaskResult):
    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")


class Errors(TaskResult):
    class Meta:
        proxy = True
        default_permissions = ()
        permissions: ClassVar = [("mark_errors", _("Can mark errors as known"))]
        verbose_name = _("error")
        verbose_name_plural = _("errors")


class Tasks(TaskResult):
    class Meta:
        proxy = True
        default_permissions = ()
        permissions: ClassVar = [
            ("run_tasks", _("Can run tasks with arguments of their choice")),
            ("rate_tasks", _("Can change the rates of tasks")),
        ]
        verbose_name = _("task")
        verbose_name_plural = _("tasks")


class Workers(TaskResult):
    class Meta:
        proxy = True
        default_permissions = ()
        permissions: ClassVar = [
            (
                "control_workers",
                _("Can control workers and see what their threads do"),
            )
        ]
        verbose_name = _("worker")
        verbose_name_plural = pgettext_lazy("page", "workers")
