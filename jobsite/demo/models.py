"""What visitors send: files to be summarised, and sign-ups to be welcomed.

Keys are random UUIDs: a page's address is known only to the visitor who was sent there.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobsite.demo.csvfile import FileProblem, Problem


class Upload(models.Model):
    """A visitor's CSV file, from its arrival to its summary."""

    class Stage(models.TextChoices):
        WAITING = "waiting", _("waiting")
        READING = "reading", _("reading")
        DONE = "done", _("done")
        REFUSED = "refused", _("refused")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    file_name = models.CharField(_("file"), max_length=255)
    #: In the database and not in a file: a rollback leaves nothing behind, and a worker on another
    #: machine can read it. Emptied once the file has been read.
    content = models.BinaryField(_("content"))
    stage = models.CharField(_("stage"), max_length=8, choices=Stage, default=Stage.WAITING)
    #: A `Problem`; not as choices, whose wording would then belong to the table's migrations.
    problem = models.CharField(_("problem"), max_length=16, blank=True, default="")
    problem_line = models.PositiveIntegerField(_("line of the problem"), default=0)
    lines = models.PositiveIntegerField(_("lines"), default=0)
    summary = models.JSONField(_("summary"), null=True)
    #: Id of the task that checks it: the key of its `jobs.models.TaskResult`.
    task_id = models.CharField(_("task"), max_length=255, blank=True, default="")
    #: Ids of the chord that this task sends: of its group, and of its body.
    group_id = models.CharField(_("group"), max_length=255, blank=True, default="")
    body_id = models.CharField(_("body"), max_length=255, blank=True, default="")
    created_at = models.DateTimeField(_("sent"), default=timezone.now)
    finished_at = models.DateTimeField(_("finished"), null=True)

    class Meta:
        verbose_name = _("upload")
        verbose_name_plural = _("uploads")
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.file_name

    def get_absolute_url(self) -> str:
        return reverse("demo:upload", args=[self.pk])

    @property
    def finished(self) -> bool:
        return self.stage in (self.Stage.DONE, self.Stage.REFUSED)

    @property
    def problem_text(self) -> str:
        """What is wrong with the file, in the reader's language."""
        return str(Problem(self.problem).label) % {"line": self.problem_line}

    def begin(self, lines: int, *, group_id: str, body_id: str) -> None:
        """Reading starts, by a chord."""
        self.stage, self.lines = self.Stage.READING, lines
        self.group_id, self.body_id = group_id, body_id
        self.save(update_fields=["stage", "lines", "group_id", "body_id"])

    def finish(self, summary: dict[str, Any]) -> None:
        self.stage, self.summary = self.Stage.DONE, summary
        self._end("summary")

    def refuse(self, error: FileProblem) -> None:
        """The file can't be used; nothing of it is kept."""
        self.stage, self.problem = self.Stage.REFUSED, error.problem
        self.problem_line = error.line
        self._end("problem", "problem_line")

    def _end(self, *fields: str) -> None:
        self.content, self.finished_at = b"", timezone.now()
        self.save(update_fields=["stage", "content", "finished_at", *fields])


class Row(models.Model):
    """One row of a file: its values in the order of the file's columns."""

    upload = models.ForeignKey(
        Upload, verbose_name=_("upload"), on_delete=models.CASCADE, related_name="rows"
    )
    line = models.PositiveIntegerField(_("line"))
    values = models.JSONField(_("values"))

    class Meta:
        verbose_name = _("row")
        verbose_name_plural = _("rows")
        ordering = ["line"]
        constraints = [models.UniqueConstraint(fields=["upload", "line"], name="demo_row_line")]

    def __str__(self) -> str:
        return f"{self.upload_id}:{self.line}"


class Subscriber(models.Model):
    """Somebody who signed up; saving a new one sends the task that writes to them."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("name"), max_length=80)
    email = models.EmailField(_("e-mail address"))
    #: The language of the page they signed up on; the mail is written in it.
    language = models.CharField(_("language"), max_length=16, default="en")
    #: The last try to write to them failed; nothing was sent.
    mail_failed = models.BooleanField(_("mail failed"), default=False, editable=False)
    created_at = models.DateTimeField(_("signed up"), default=timezone.now)

    class Meta:
        verbose_name = _("subscriber")
        verbose_name_plural = _("subscribers")
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("demo:subscriber", args=[self.pk])


class SentMail(models.Model):
    """The mail that was sent to a subscriber, so that the page can show it."""

    subscriber = models.OneToOneField(
        Subscriber, verbose_name=_("subscriber"), on_delete=models.CASCADE, related_name="mail"
    )
    subject = models.CharField(_("subject"), max_length=200)
    body = models.TextField(_("text"))
    sent_at = models.DateTimeField(_("sent"), default=timezone.now)

    class Meta:
        verbose_name = _("sent mail")
        verbose_name_plural = _("sent mails")

    def __str__(self) -> str:
        return self.subject
