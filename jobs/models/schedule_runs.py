"""What came of each due time of a schedule."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from jobs.models.moments import MomentField


class ScheduleRun(models.Model):
    """One due time of a schedule that came: sent, or let pass."""

    class Outcome(models.TextChoices):
        SENT = "sent", _("sent")
        #: The last run had not ended.
        OVERLAPPED = "overlapped", _("skipped: the last run went on")
        #: An operator asked for it.
        SKIPPED = "skipped", _("skipped by hand")

    schedule = models.ForeignKey(
        "jobs.Schedule",
        on_delete=models.CASCADE,
        related_name="history",
        verbose_name=_("schedule"),
    )
    due_at = MomentField(_("due"))
    #: When beat came to it.
    at = MomentField(_("at"))
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome, default=Outcome.SENT)
    #: Id of the call; empty when none was sent.
    result = models.CharField(_("result"), max_length=255, default="")

    class Meta:
        verbose_name = _("run of a schedule")
        verbose_name_plural = _("runs of schedules")
        ordering: ClassVar = ["schedule", "-due_at"]
        constraints: ClassVar = [
            # Also what the history of one schedule is read by, newest first.
            models.UniqueConstraint(fields=["schedule", "due_at"], name="jobs_run_once"),
        ]
        indexes: ClassVar = [
            # What the upkeep prunes by.
            models.Index(fields=["at"], name="jobs_run_at"),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id}@{self.due_at.isoformat()}"
