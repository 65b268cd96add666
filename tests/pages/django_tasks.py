"""docs/django-tasks.md needs Django 6, or the package that has its tasks."""

import sys
from typing import Any

try:
    import django.tasks  # noqa: F401
except ImportError:
    import django_tasks

    sys.modules["django.tasks"] = django_tasks

from jobs.models import TaskResult


def afterwards(page: Any) -> None:
    if sys.modules["django.tasks"].__name__ == "django_tasks":
        del sys.modules["django.tasks"]
    assert TaskResult.objects.get().state == "SUCCESS"
