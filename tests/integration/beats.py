"""Schedules for the tests of beat, at a noon of their own."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from jobs.models import Schedule

NOON = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture(autouse=True)
def no_other_schedules(db: None) -> None:
    """The demonstration site brings some of its own. To be imported by the file of tests."""
    Schedule.objects.all().delete()


def scheduled(name: str = "s", *, due: dt.datetime | None = NOON, **fields: Any) -> Schedule:
    """A schedule that is due at a given moment, every minute unless fields say otherwise."""
    fields = {"task": "tests.beat.unknown", "interval": MINUTE, "created_at": NOON, **fields}
    if fields.get("crontab"):
        fields["interval"] = None
    schedule = Schedule.objects.create(name=name, **fields)
    Schedule.objects.filter(pk=schedule.pk).update(next_run_at=due)
    schedule.refresh_from_db()
    return schedule
