"""What code declares becomes rows, and goes on when both sides are edited."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries, Settings

from jobs import registry
from jobs.api.task import task_of
from jobs.exceptions import ConfigurationError
from jobs.models import Schedule
from jobs.schedules import declared, rows
from jobs.schedules.merge import edited
from jobs.schedules.rows import (
    Step,
    Verb,
    reset,
    sync,
    synchronise,
)

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = dt.timedelta(minutes=1)
OFTEN = {"task": "tests.greet", "schedule": 60, "args": ["you"]}


@pytest.fixture(autouse=True)
def _nothing_else(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither other declarations nor other schedules, and one task."""
    monkeypatch.setattr(registry, "tasks", {})
    monkeypatch.setattr(declared, "_added", {})
    Schedule.objects.all().delete()

    def greet(name: str, times: int = 1) -> None: ...

    task_of(greet, name="tests.greet")


@pytest.fixture
def declare(settings: Settings) -> Callable[..., list[tuple[str, str]]]:
    """Let code declare these, and synchronise; what was done."""

    def put(**entries: Any) -> list[tuple[str, str]]:
        settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": entries}
        return done(synchronise())

    return put


def done(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.verb.value, step.name) for step in steps]


def row(name: str = "a") -> Schedule:
    return Schedule.objects.get(name=name)


def test_a_row_is_made(declare: Any) -> None:
    assert declare(a={**OFTEN, "options": {"queue": "high", "expires": 30}}) == [("created", "a")]
    made = row()
    assert (made.task, made.args, made.queue) == ("tests.greet", ["you"], "high")
    assert (made.interval, made.expires) == (MINUTE, MINUTE / 2)
    assert made.next_run_at is not None
    assert made.enabled
    assert not made.dropped
    assert edited(made) == []


def test_nothing_new_is_one_query_and_no_write(
    declare: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    declare(
        a={**OFTEN, "args": [("a", 1)], "kwargs": {"times": 2}, "options": {"headers": {"a": [1]}}},
        b={**OFTEN, "schedule": "0 7 * * *", "jitter": 1.5, "enabled": False},
    )
    with django_assert_num_queries(1):
        assert synchronise() == []


def test_what_code_changes_follows(declare: Any) -> None:
    declare(a=OFTEN)
    planned = row().next_run_at
    assert declare(a={**OFTEN, "args": ["me"]}) == [("changed", "a")]
    assert row().args == ["me"]
    assert row().next_run_at == planned
    declare(a={**OFTEN, "schedule": "0 7 * * *"})
    assert (row().interval, row().crontab) == (None, "0 7 * * *")
    assert row().next_run_at != planned


def test_what_was_edited_stays_until_it_is_reset(declare: Any) -> None:
    declare(a=OFTEN)
    edit = row()
    edit.interval, edit.queue, edit.enabled = 2 * MINUTE, "low", False
    edit.save()
    assert synchronise() == []
    assert declare(a={**OFTEN, "schedule": 90, "args": ["me"]}) == [("changed", "a")]
    assert (row().interval, row().queue, row().enabled) == (2 * MINUTE, "low", False)
    assert row().args == ["me"]
    assert edited(row()) == ["interval", "queue", "enabled"]

    reset(row())
    assert (row().interval, row().queue, row().enabled) == (1.5 * MINUTE, "", True)
    assert edited(row()) == []
    assert row().next_run_at is not None
    assert declare(a=OFTEN) == [("changed", "a")]
    assert row().interval == MINUTE


def test_beats_columns_are_left_alone(declare: Any) -> None:
    declare(a=OFTEN)
    at = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    Schedule.objects.update(runs=7, last_run_at=at, last_result="x")
    declare(a={**OFTEN, "schedule": 90})
    assert (row().runs, row().last_run_at, row().last_result) == (7, at, "x")


def test_what_code_drops_is_switched_off(declare: Any) -> None:
    declare(a=OFTEN, b=OFTEN)
    assert declare(b=OFTEN) == [("dropped", "a")]
    assert (row().enabled, row().dropped, row().next_run_at) == (False, True, None)
    assert row("b").enabled
    assert synchronise() == []
    reset(row())
    assert not row().enabled


@pytest.mark.parametrize("enabled", [True, False])
def test_declared_again_it_is_as_before(declare: Any, enabled: bool) -> None:
    declare(a=OFTEN)
    edit = row()
    edit.enabled, edit.queue = enabled, "low"
    edit.save()
    declare()
    assert declare(a={**OFTEN, "args": ["me"]}) == [("returned", "a")]
    assert (row().enabled, row().dropped) == (enabled, False)
    assert (row().queue, row().args) == ("low", ["me"])
    assert synchronise() == []


def test_dropped_and_switched_on_by_hand(declare: Any) -> None:
    declare(a={**OFTEN, "enabled": False})
    declare()
    edit = row()
    edit.enabled = True
    edit.save()
    assert synchronise() == []
    assert row().enabled
    declare(a={**OFTEN, "enabled": False})
    assert row().enabled


def test_a_name_that_the_admin_has_taken(declare: Any) -> None:
    Schedule.objects.create(name="a", task="tests.greet", interval=5 * MINUTE)
    assert declare(a=OFTEN) == [("taken", "a")]
    assert (row().interval, row().declared) == (5 * MINUTE, None)
    declare()
    assert row().enabled
    with pytest.raises(ConfigurationError, match="'a' isn't declared in code"):
        reset(row())


def test_adopting_it(declare: Any, settings: Settings) -> None:
    Schedule.objects.create(name="a", task="tests.greet", args=["you"], interval=5 * MINUTE)
    settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": {"a": OFTEN}}
    assert done(synchronise(adopt=True)) == [("adopted", "a")]
    assert edited(row()) == ["interval"]
    assert synchronise(adopt=True) == []
    assert declare(a={**OFTEN, "args": ["me"]}) == [("changed", "a")]
    assert (row().interval, row().args) == (5 * MINUTE, ["me"])


def test_what_is_wrong_keeps_back_nothing_else(
    declare: Any, caplog: pytest.LogCaptureFixture
) -> None:
    declare(a=OFTEN)
    assert declare(a={**OFTEN, "task": "tests.gret"}, b=OFTEN) == [
        ("refused", "a"),
        ("created", "b"),
    ]
    assert (row().task, row().enabled, row().dropped) == ("tests.greet", True, False)
    with caplog.at_level(logging.INFO, "jobs.beat"):
        sync()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "ERROR",
            "schedule 'a' as code declares it: refused: no task is called 'tests.gret'. "
            "Did you mean 'tests.greet'?",
        )
    ]


def test_a_dry_run_writes_nothing(declare: Any, settings: Settings) -> None:
    declare(a=OFTEN, b=OFTEN)
    settings.JOBS = {
        **settings.JOBS,
        "BEAT_SCHEDULE": {"a": {**OFTEN, "schedule": 90}, "c": OFTEN},
    }
    before = list(Schedule.objects.order_by("name").values())
    expected = [("changed", "a"), ("created", "c"), ("dropped", "b")]
    assert done(synchronise(write=False)) == expected
    assert list(Schedule.objects.order_by("name").values()) == before
    assert done(synchronise()) == expected


def test_an_edit_that_no_longer_makes_a_rule(declare: Any) -> None:
    """What was stored past validation is told, and keeps back nothing else."""
    daily = {**OFTEN, "schedule": "0 7 * * *"}
    declare(a={**daily, "enabled": False}, b=OFTEN)
    Schedule.objects.filter(name="a").update(timezone="Nowhere/Land")
    assert declare(a=daily, b={**OFTEN, "args": ["me"]}) == [("refused", "a"), ("changed", "b")]
    assert "Nowhere/Land" in synchronise()[0].detail
    assert not row("a").enabled


def test_made_by_another_process_meanwhile(declare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(a=OFTEN)
    [one] = declared.find()
    missed = Step(Verb.CREATED, "a", values={"task": "x"})
    assert rows._write(one, missed, adopt=False) is None
    assert Schedule.objects.count() == 1


@pytest.mark.parametrize("processes", [4])
def test_many_at_once(declare: Any, settings: Settings, processes: int) -> None:
    declare(**{f"old {n}": OFTEN for n in range(5)})
    entries = {f"new {n}": {**OFTEN, "args": [str(n)]} for n in range(5)}
    changed = {"old 0": {**OFTEN, "schedule": 90}}
    settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": {**entries, **changed}}
    together = threading.Barrier(processes)
    steps: list[Step] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            together.wait(timeout=30)
            steps.extend(synchronise())
        except Exception as error:  # noqa: BLE001  raised again by the test's own thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for error in errors:
        raise error
    assert sorted(done(steps)) == [
        ("changed", "old 0"),
        *[("created", f"new {n}") for n in range(5)],
        *[("dropped", f"old {n}") for n in range(1, 5)],
    ]
    assert Schedule.objects.count() == 10
    assert Schedule.objects.filter(enabled=True).count() == 6
