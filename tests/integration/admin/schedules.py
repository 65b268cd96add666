"""What the tests of schedules in the admin share."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.test import Client
from django.utils import timezone

from jobs.models import Schedule, ScheduleRun
from tests.integration.admin.conftest import row

LIST = "/admin/jobs/schedule/"
ADD = f"{LIST}add/"

#: A task of the tests: `add(a, b)`.
TASK = "tests.tasks.add"

HOUR = dt.timedelta(hours=1)


def page_of(schedule: Schedule, name: str = "change") -> str:
    return f"{LIST}{schedule.pk}/{name}/"


def form(**fields: Any) -> dict[str, Any]:
    """What the add page sends."""
    return {
        "name": "s",
        "enabled": "on",
        "task": TASK,
        "args": "[1, 2]",
        "kwargs": "{}",
        "headers": "{}",
        "queue": "",
        "kind": "interval",
        "crontab": "",
        "interval_0": "5",
        "interval_1": "60",
        "timezone": "Europe/Berlin",
        "misfire": "once",
        "overlap": "allow",
        **fields,
    }


def made(name: str = "s", **values: Any) -> Schedule:
    """A schedule of every hour, unless told otherwise."""
    rule = {} if {"crontab", "interval", "at"} & values.keys() else {"interval": HOUR}
    return Schedule.objects.create(**{"name": name, "task": TASK, "args": [1, 2], **rule, **values})


def ran(schedule: Schedule, *, ago: dt.timedelta = HOUR, **values: Any) -> ScheduleRun:
    """A run of it that was due so long ago and sent 20 ms later, with a result, unless told
    otherwise."""
    due = timezone.now() - ago
    if values.get("outcome", "sent") == "sent" and "result" not in values:
        values["result"] = row(task=TASK, state=values.pop("state", "SUCCESS")).pk
    late = dt.timedelta(milliseconds=20)
    return ScheduleRun.objects.create(
        **{"schedule": schedule, "due_at": due, "at": due + late, **values}
    )


def errors(client: Client, url: str = ADD, **fields: Any) -> dict[str, list[str]]:
    """By field, of a form that is refused."""
    response = client.post(url, form(**fields))
    assert response.status_code == 200
    found = response.context["adminform"].form.errors
    return {name: list(texts) for name, texts in found.items()}
