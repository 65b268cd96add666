"""Tables for the tests' tasks and triggers; made with the test database, without migrations."""

from __future__ import annotations

from django.db import models


class Run(models.Model):
    """One execution of a task that leaves a trace: `tests.tasks.trace`."""

    label = models.CharField(max_length=255)

    def __str__(self) -> str:
        return self.label


class Author(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Book(models.Model):
    title = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.title
