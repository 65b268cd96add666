"""What becomes of the examples of docs/schedules.md."""

from typing import Any

from django.core.management import call_command

from jobs.models import Schedule


def afterwards(page: Any) -> None:
    call_command("jobs_sync_schedules", verbosity=0)
    names = set(Schedule.objects.values_list("name", flat=True))
    assert {"tidy up each hour", "greet each ten seconds", "shop.tasks.weekly_report"} <= names
