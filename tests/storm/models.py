"""What is noted during a storm; the tables are made without migrations."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Sent(models.Model):
    """A task that was sent, noted in the transaction that sent it."""

    id = models.CharField(primary_key=True, max_length=40)
    kind = models.CharField(max_length=20)

    objects: ClassVar[models.Manager[Sent]] = models.Manager()

    def __str__(self) -> str:
        return self.id


class Effect(models.Model):
    """What one run of a task leaves."""

    task = models.CharField(max_length=40, db_index=True)
    kind = models.CharField(max_length=20)

    objects: ClassVar[models.Manager[Effect]] = models.Manager()

    def __str__(self) -> str:
        return self.task


class End(models.Model):
    """An end that was written into the ledger; see `tests.storm.database`."""

    task = models.CharField(max_length=40)

    objects: ClassVar[models.Manager[End]] = models.Manager()

    def __str__(self) -> str:
        return self.task
