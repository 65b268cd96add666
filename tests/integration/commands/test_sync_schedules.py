"""`manage.py jobs_sync_schedules`."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from jobs import registry
from jobs.api.task import task_of
from jobs.models import Schedule
from jobs.schedules import declared
from tests.integration.commands.helpers import fail, run

pytestmark = pytest.mark.django_db

OFTEN = {"task": "tests.greet", "schedule": 60}


@pytest.fixture(autouse=True)
def declare(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(registry, "tasks", {})
    monkeypatch.setattr(declared, "_added", {})
    Schedule.objects.all().delete()
    task_of(lambda: None, name="tests.greet")

    def put(**entries: Any) -> None:
        settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": entries}

    return put


def test_it_tells_what_it_does(declare: Any) -> None:
    declare(a=OFTEN, b=OFTEN)
    assert run("jobs_sync_schedules").splitlines() == [
        "a: created (tests.greet)",
        "b: created (tests.greet)",
    ]
    declare(a={**OFTEN, "schedule": 90, "jitter": 5})
    assert run("jobs_sync_schedules").splitlines() == [
        "a: changed (interval, jitter)",
        "b: not declared any more: switched off (tests.greet)",
    ]
    assert run("jobs_sync_schedules") == (
        "All schedules are as code declares them, or were edited.\n"
    )


def test_a_dry_run(declare: Any) -> None:
    declare(a=OFTEN)
    assert run("jobs_sync_schedules", "--dry-run").splitlines() == [
        "a: created (tests.greet)",
        "Nothing is written: this was a dry run.",
    ]
    assert not Schedule.objects.exists()


def test_what_can_not_be_written_is_an_error(declare: Any) -> None:
    Schedule.objects.create(name="a", task="tests.greet", crontab="0 7 * * *")
    declare(a=OFTEN, b={**OFTEN, "task": "tests.gret"}, c=OFTEN)
    status, printed, told = fail("jobs_sync_schedules")
    assert status == 1
    assert told == "2 could not be written."
    assert printed.splitlines() == [
        "a: left alone (a schedule of this name was made in the admin, and is left alone. Rename "
        "one of the two, or run jobs_sync_schedules --adopt.)",
        "b: not written (no task is called 'tests.gret'. Did you mean 'tests.greet'?)",
        "c: created (tests.greet)",
    ]
    declare(a=OFTEN, c=OFTEN)
    assert run("jobs_sync_schedules", "--adopt") == "a: adopted (tests.greet)\n"
