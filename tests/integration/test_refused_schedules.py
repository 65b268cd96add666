"""A schedule that can't be sent, or that the database refuses, holds up no other."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection

from jobs.beat import run_id, sending, tick, ticking
from jobs.models import Schedule, ScheduleRun, TaskResult
from jobs.states import State
from tests.integration.beats import (
    MINUTE,
    NOON,
    no_other_schedules,  # noqa: F401
    scheduled,
)
from tests.tasks import add

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@pytest.fixture(autouse=True)
def _nothing_left_out() -> Iterator[None]:
    yield
    ticking._left_out.clear()


@pytest.fixture
def refuse(request: pytest.FixtureRequest) -> Any:
    """Have the database refuse to write rows of a table that fulfil a condition."""

    def begin(table: str, event: str, column: str, value: str = "refused") -> None:
        name = f"refuse_{table}_{event}"
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute(
                    f"CREATE TRIGGER {name} BEFORE {event} ON {table} WHEN NEW.{column} = '{value}'"
                    " BEGIN SELECT RAISE(ABORT, 'no such thing'); END"
                )
                end = f"DROP TRIGGER {name}"
            else:
                cursor.execute(
                    f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF "
                    f"NEW.{column} = '{value}' THEN RAISE EXCEPTION 'no such thing'; END IF; "
                    "RETURN NEW; END $$"
                )
                cursor.execute(
                    f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE "
                    f"FUNCTION {name}()"
                )
                end = f"DROP FUNCTION {name} CASCADE"

        def mend() -> None:
            with connection.cursor() as cursor:
                cursor.execute(end)

        request.addfinalizer(mend)

    request.getfixturevalue("transactional_db")
    return begin


def check_others(bad: Schedule) -> None:
    """The good ones have fired and go on; so does this one's next time."""
    for name in ("before", "after"):
        good = Schedule.objects.get(name=name)
        assert (good.next_run_at, good.runs) == (NOON + MINUTE, 1)
        assert TaskResult.objects.get(id=run_id(good.pk, NOON)).state == State.PENDING
    bad.refresh_from_db()
    assert bad.next_run_at == NOON + MINUTE


def three(**fields: Any) -> Schedule:
    scheduled("before", task=add.name, args=[1, 1])
    bad = scheduled("bad", **{"task": add.name, "args": [1, 1], **fields})
    scheduled("after", task=add.name, args=[1, 1])
    return bad


def test_one_whose_message_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    bad = three(expires=dt.timedelta(days=10_000_000))
    assert tick(NOON) == NOON + MINUTE
    check_others(bad)
    row = TaskResult.objects.get(id=run_id(bad.pk, NOON))
    assert (row.state, row.task) == (State.FAILURE, add.name)
    assert row.error.startswith("Schedule 'bad' can't be sent: ")
    run = ScheduleRun.objects.get(schedule=bad)
    assert (run.due_at, run.result) == (NOON, row.id)
    assert "schedule 'bad' can't be sent" in caplog.text
    assert tick(NOON + MINUTE) == NOON + 2 * MINUTE
    assert TaskResult.objects.filter(state=State.FAILURE).count() == 2


def test_one_whose_row_the_database_refuses(refuse: Any) -> None:
    refuse("jobs_taskresult", "INSERT", "args", '["refused"]')
    bad = three(args=["refused"])
    assert tick(NOON) == NOON + MINUTE
    check_others(bad)
    row = TaskResult.objects.get(id=run_id(bad.pk, NOON))
    assert (row.state, row.args) == (State.FAILURE, "[]")
    assert "no such thing" in row.error


def test_neither_its_call_nor_its_failure_can_be_recorded(refuse: Any) -> None:
    refuse("jobs_taskresult", "INSERT", "task")
    bad = three(task="refused")
    assert tick(NOON) == NOON + MINUTE
    check_others(bad)
    assert ScheduleRun.objects.get(schedule=bad).result == ""


def test_one_that_cannot_be_written_is_left_out(
    refuse: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = three()
    Schedule.objects.filter(pk=bad.pk).update(description="refused")
    refuse("jobs_schedule", "UPDATE", "description")
    assert tick(NOON) == NOON + MINUTE
    good = Schedule.objects.exclude(pk=bad.pk)
    assert set(good.values_list("next_run_at", flat=True)) == {NOON + MINUTE}
    assert tick(NOON + MINUTE) == NOON + 2 * MINUTE
    ticking._left_out.update({bad.pk: 0.0})
    assert tick(NOON + MINUTE) == NOON + 2 * MINUTE
    assert caplog.text.count("is left out, and looked at again later") == 1


@pytest.mark.skipif(connection.vendor != "sqlite", reason="others look at what they store")
def test_one_that_cannot_be_read_is_left_out() -> None:
    bad = three()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_schedule SET expires = 'soon' WHERE id = %s", [bad.pk])
    assert tick(NOON) == NOON + MINUTE
    assert TaskResult.objects.count() == 2


def test_an_outage_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    three()

    def away(*args: Any) -> None:
        raise OperationalError("the server has gone away")

    monkeypatch.setattr(sending, "send", away)
    with pytest.raises(OperationalError):
        tick(NOON)
    assert not ticking._left_out
    assert not TaskResult.objects.exists()
