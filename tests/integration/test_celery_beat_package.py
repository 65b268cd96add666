"""Import of what django-celery-beat itself writes, into tables that its own migrations make."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings

from jobs import registry
from jobs.api.task import task_of
from jobs.models import Schedule
from tests.integration.commands.helpers import run
from tests.services import missing

pytestmark = pytest.mark.django_db(transaction=True)

PAST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2126, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def greet(db: None) -> Iterator[None]:
    """A task that the schedules call, and no schedule of the demonstration."""
    Schedule.objects.all().delete()

    def greet(name: str) -> None: ...

    task = task_of(greet, name="shop.greet")
    yield
    del registry.tasks[task.name]


@pytest.fixture
def written() -> Iterator[None]:
    """One schedule of each kind, in the package's tables."""
    if find_spec("django_celery_beat") is None:
        if sys.version_info < (3, 13):
            missing("the package django-celery-beat is not installed (see requirements-dev.txt)")
        pytest.skip("django-celery-beat has no release for the Django that is tested here")
    # Without the other apps, whose set-up must not happen twice.
    with override_settings(INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_beat"]):
        call_command(migrate.Command(), "django_celery_beat", verbosity=0)
        from django_celery_beat import models

        fill(models)
    yield
    with connection.schema_editor() as editor:
        for name in ("PeriodicTask", "PeriodicTasks", *(f"{kind}Schedule" for kind in KINDS)):
            editor.delete_model(getattr(models, name))
    MigrationRecorder(connection).migration_qs.filter(app="django_celery_beat").delete()


KINDS = ("Crontab", "Interval", "Solar", "Clocked")


def fill(models: Any) -> None:
    task = {"task": "shop.greet", "args": '["you"]'}
    put = models.PeriodicTask.objects.create
    put(
        name="daily",
        crontab=models.CrontabSchedule.objects.create(
            minute="0", hour="6", timezone="Europe/Berlin"
        ),
        queue="high",
        priority=5,
        headers='{"a": 1}',
        expire_seconds=30,
        description="d",
        **task,
    )
    put(
        name="often",
        interval=models.IntervalSchedule.objects.create(every=10, period="minutes"),
        start_time=PAST,
        expires=FUTURE,
        last_run_at=PAST,
        total_run_count=3,
        **task,
    )
    put(
        name="once",
        clocked=models.ClockedSchedule.objects.create(clocked_time=FUTURE),
        one_off=True,
        **task,
    )
    put(
        name="sun",
        solar=models.SolarSchedule.objects.create(event="sunset", latitude=1, longitude=2),
        **task,
    )


def test_each_kind(written: None) -> None:
    printed = run("jobs_import_celery_beat", "--apply")
    assert "3 are imported, 1 are not" in printed
    daily, often, once = Schedule.objects.order_by("name")
    assert (daily.crontab, daily.timezone, daily.queue) == ("0 6 * * *", "Europe/Berlin", "high")
    assert (daily.priority, daily.headers, daily.description) == (5, {"a": 1}, "d")
    assert daily.expires == dt.timedelta(seconds=30)
    assert (often.interval, often.start_at, often.end_at) == (
        dt.timedelta(minutes=10),
        PAST,
        FUTURE,
    )
    assert (often.last_run_at, often.runs) == (PAST, 3)
    assert (once.name, once.at) == ("once", FUTURE)
    assert all(schedule.enabled for schedule in (daily, often, once))
