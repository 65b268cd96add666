"""The ledger: one row for each call of a task."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import ClassVar

from django.db import connections, models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs.conf.values import LONGEST_LABEL
from jobs.models.moments import MomentField
from jobs.states import TERMINAL, State


class TaskResultQuerySet(models.QuerySet["TaskResult"]):
    def unpublished(self, before: dt.datetime) -> TaskResultQuerySet:
        """Committed before this moment, and not yet known to be on the broker."""
        return self.filter(
            state=State.PENDING, published_at__isnull=True, created_at__lt=before
        ).order_by("id")

    def in_state(self, *states: str) -> TaskResultQuerySet:
        """Rows in one of these states, SUCCESS not among them, found with the index of states."""
        return self.filter(state_is(*states, vendor=connections[self.db].vendor))

    def ended(self, ids: Iterable[str]) -> set[str]:
        """Those of these ids whose terminal state is recorded."""
        found = self.filter(id__in=list(ids), state__in=TERMINAL)
        return set(found.values_list("id", flat=True))


def state_is(*states: str, vendor: str) -> Q:
    """The condition of `TaskResultQuerySet.in_state` on a database of this kind."""
    asked = Q(state=states[0]) if len(states) == 1 else Q(state__in=states)
    # SQLite uses a partial index when it reads the index's own condition. PostgreSQL needs no such
    # hint, which would make it expect fewer rows than there are.
    return asked & ~Q(state=State.SUCCESS) if vendor == "sqlite" else asked


class TaskResult(models.Model):
    """One call of a task, from PENDING to its end: outbox, result and history in one row.

    ``args``, ``kwargs`` and ``result`` are JSON texts (see `jobs.serialization`), not JSON
    columns: the database never looks inside, and a text costs it nothing to store.
    """

    id = models.CharField(_("id"), primary_key=True, max_length=255)
    task = models.CharField(_("task"), max_length=255)
    queue = models.CharField(_("queue"), max_length=255)
    state = models.CharField(_("state"), max_length=16, choices=State, default=State.PENDING)
    args = models.TextField(_("arguments"), default="[]")
    kwargs = models.TextField(_("keyword arguments"), default="{}")
    result = models.TextField(_("result"), null=True)  # noqa: DJ001  null: there is none, not ""
    error_type = models.CharField(_("exception"), max_length=255, blank=True, default="")
    error = models.TextField(_("error"), blank=True, default="")
    traceback = models.TextField(_("traceback"), blank=True, default="")
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    worker = models.CharField(_("worker"), max_length=255, blank=True, default="")
    created_at = MomentField(_("sent"), default=timezone.now)
    eta = MomentField(_("not before"), null=True, blank=True)
    started_at = MomentField(_("started"), null=True, blank=True)
    finished_at = MomentField(_("finished"), null=True, blank=True)
    published_at = MomentField(_("published"), null=True, blank=True)
    #: Of its group, and its place there.
    group_id = models.CharField(_("group"), max_length=255, null=True, blank=True)  # noqa: DJ001
    group_index = models.PositiveIntegerField(_("place in its group"), null=True, blank=True)
    #: The call that sent it, or that it follows.
    parent_id = models.CharField(_("sent by"), max_length=255, null=True, blank=True)  # noqa: DJ001
    #: The first call of that line; null: this one.
    root_id = models.CharField(_("root"), max_length=255, null=True, blank=True)  # noqa: DJ001
    #: A word of the caller's own, to find the call by. The database has the default as well, since
    #: workers that don't know of labels yet go on inserting rows.
    label = models.CharField(
        _("label"), max_length=LONGEST_LABEL, blank=True, default="", db_default=""
    )
    #: The wire form, for the relay, for recovery and for retrying after a failure; cleared on
    #: success.
    message = models.BinaryField(_("message"), default=b"", editable=False)

    objects = TaskResultQuerySet.as_manager()

    class Meta:
        verbose_name = _("result")
        verbose_name_plural = _("results")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("retry_taskresult", _("Can run failed tasks again")),
            ("edit_taskresult", _("Can run tasks again with other arguments")),
            ("revoke_taskresult", _("Can revoke tasks")),
        ]
        indexes: ClassVar = [
            # The admin's list of one state, newest first; recovery, pruning. Not of SUCCESS: most
            # rows end in it, so its entries would cost each call and find nothing sooner.
            models.Index(
                fields=["state", "-id"],
                name="jobs_result_state_others",
                condition=~Q(state="SUCCESS"),
            ),
            # The admin's list of one task, newest first.
            models.Index(fields=["task", "-id"], name="jobs_result_task"),
            # The admin's list of one error, newest first. Its page of errors needs no more than
            # what the index has.
            models.Index(
                fields=["error_type", "-id", "task"],
                name="jobs_result_error",
                condition=~Q(error_type=""),
            ),
            # The admin's list of one label, newest first.
            models.Index(fields=["label", "-id"], name="jobs_result_label", condition=~Q(label="")),
            # What is tried or starts next: the calls that have not ended and have a time.
            models.Index(
                fields=["eta", "id"],
                name="jobs_result_due",
                condition=Q(eta__isnull=False, finished_at__isnull=True),
            ),
            # The relay's question; nearly always empty.
            models.Index(
                fields=["created_at"],
                name="jobs_result_unpublished",
                condition=Q(state="PENDING", published_at__isnull=True),
            ),
            # The members of a group in their order: the join of a chord, `GroupResult`.
            models.Index(
                fields=["group_id", "group_index"],
                name="jobs_result_group",
                condition=Q(group_id__isnull=False),
            ),
            # What came of a call: `AsyncResult.children`.
            models.Index(
                fields=["root_id"],
                name="jobs_result_root",
                condition=Q(root_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task}[{self.id}]"


class TaskAttempt(models.Model):
    """An attempt at a task that was followed by another: a retry, or a call that a person has run
    again, which may have ended in any state."""

    # Without a constraint in the database: a result may be deleted while its task is retried.
    result = models.ForeignKey(
        TaskResult,
        on_delete=models.CASCADE,
        db_constraint=False,
        related_name="failed_attempts",
        verbose_name=_("result"),
    )
    number = models.PositiveIntegerField(_("attempt"))
    worker = models.CharField(_("worker"), max_length=255)
    started_at = MomentField(_("started"), null=True)
    finished_at = MomentField(_("finished"))
    error_type = models.CharField(_("exception"), max_length=255)
    error = models.TextField(_("error"))
    traceback = models.TextField(_("traceback"))
    #: When it was due, if it is the first; null: at once. For a later one see `retry_at` of the
    #: attempt before it.
    eta = MomentField(_("not before"), null=True)
    #: When the attempt after it was due.
    retry_at = MomentField(_("next attempt"), null=True)
    #: Who has run the call again after it, and when; empty: it was retried.
    reopened_by = models.CharField(_("run again by"), max_length=255, default="")
    reopened_at = MomentField(_("run again"), null=True)

    class Meta:
        verbose_name = _("failed attempt")
        verbose_name_plural = _("failed attempts")
        ordering: ClassVar = ["result", "number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["result", "number"], name="jobs_attempt_once"),
        ]

    def __str__(self) -> str:
        return f"{self.result_id}#{self.number}"


class KnownError(models.Model):
    """An error of a task that a person has marked as known: nobody needs to look at it now."""

    task = models.CharField(_("task"), max_length=255)
    error_type = models.CharField(_("exception"), max_length=255)
    marked_by = models.CharField(_("marked by"), max_length=255)
    marked_at = MomentField(_("marked"), default=timezone.now)
    why = models.TextField(_("reason"), default="")

    class Meta:
        verbose_name = _("known error")
        verbose_name_plural = _("known errors")
        default_permissions = ()
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["task", "error_type"], name="jobs_known_error_once"),
        ]

    def __str__(self) -> str:
        return f"{self.error_type} of {self.task}"
