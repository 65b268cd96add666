"""Schedules out of django-celery-beat's tables."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from jobs import registry
from jobs.api.task import task_of
from jobs.models import Schedule
from jobs.schedules import celery_beat
from jobs.schedules.celery_beat import Import
from tests.integration.commands.helpers import fail, run

pytestmark = pytest.mark.django_db

MODELS = (
    celery_beat.Crontab,
    celery_beat.Interval,
    celery_beat.Solar,
    celery_beat.Clocked,
    celery_beat.PeriodicTask,
)
PAST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2126, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def greet(db: None) -> Iterator[None]:
    """A task that the schedules call, and no schedule of the demonstration."""
    Schedule.objects.all().delete()

    def greet(name: str, times: int = 1) -> None: ...

    task = task_of(greet, name="shop.greet")
    yield
    del registry.tasks[task.name]


@pytest.fixture(scope="module")
def _old_tables(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        with connection.schema_editor() as editor:
            for model in MODELS:
                editor.create_model(model)
        yield
        with connection.schema_editor() as editor:
            for model in MODELS:
                editor.delete_model(model)


@pytest.fixture
def old(_old_tables: None) -> Callable[..., None]:
    """Put a row into the old tables: ``old("name", interval={"every": 1, "period": "days"})``."""

    def put(name: str, **fields: Any) -> None:
        kinds = dict(zip(("crontab", "interval", "solar", "clocked"), MODELS, strict=False))
        for kind in kinds.keys() & fields.keys():
            fields[f"{kind}_id"] = kinds[kind].objects.create(**fields.pop(kind)).pk
        celery_beat.PeriodicTask.objects.create(
            **{"name": name, "task": "shop.greet", "args": '["you"]', **fields}
        )

    return put


def only(taken: dict[str, str] | None = None) -> Import:
    [one] = celery_beat.plan("default", taken or {})
    return one


def imported(notes: list[str] | None = None) -> Schedule:
    """The only schedule, written and read again."""
    one = only()
    assert one.notes == (notes or [])
    assert celery_beat.save([one]) == 1
    return Schedule.objects.get()


EVERY_TWO_DAYS = {"every": 2, "period": "days"}


def test_an_interval_with_all_that_it_has(old: Any) -> None:
    old(
        "greeting",
        interval=EVERY_TWO_DAYS,
        kwargs='{"times": 2}',
        queue="high",
        priority=3,
        headers='{"tenant": "a"}',
        expire_seconds=60,
        start_time=PAST,
        expires=FUTURE,
        last_run_at=PAST + dt.timedelta(days=2),
        total_run_count=7,
        description="Says hello.",
    )
    made = imported()
    assert (made.name, made.task) == ("greeting", "shop.greet")
    assert (made.args, made.kwargs, made.headers) == (["you"], {"times": 2}, {"tenant": "a"})
    assert (made.queue, made.priority, made.expires) == ("high", 3, dt.timedelta(minutes=1))
    assert (made.interval, made.start_at, made.end_at) == (dt.timedelta(days=2), PAST, FUTURE)
    assert (made.last_run_at, made.runs) == (PAST + dt.timedelta(days=2), 7)
    assert (made.description, made.enabled, made.declared) == ("Says hello.", True, None)
    assert made.next_run_at is not None


def test_an_interval_goes_on_as_it_was(old: Any) -> None:
    last = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    old("a", interval=EVERY_TWO_DAYS, last_run_at=last)
    assert imported().next_run_at == last + dt.timedelta(days=2)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"minute": "30", "hour": "7", "day_of_week": "1"}, "30 7 * * 1"),
        ({"minute": "*/15"}, "*/15 * * * *"),
        ({"minute": "[0, 30]"}, "0,30 * * * *"),
        ({"minute": "0, 30", "hour": ""}, "0,30 * * * *"),
        ({"day_of_month": "1-7", "day_of_week": "mon"}, "* * * * 1#1"),
    ],
)
def test_a_crontab_in_its_zone(old: Any, fields: dict[str, str], text: str) -> None:
    old("a", crontab={**fields, "timezone": "Asia/Shanghai"})
    made = imported()
    assert (made.crontab, made.timezone, made.interval) == (text, "Asia/Shanghai", None)


def test_one_moment(old: Any) -> None:
    old("a", clocked={"clocked_time": FUTURE}, one_off=True)
    made = imported()
    assert (made.at, made.next_run_at, made.enabled) == (FUTURE, FUTURE, True)


def test_switched_off_it_stays_so(old: Any) -> None:
    old("a", interval=EVERY_TWO_DAYS, enabled=False)
    assert not imported().enabled


OFF = "It is imported switched off."


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"task": "shop.gone"}, "No task is called shop.gone here."),
        ({"args": "[]"}, "missing a required argument: 'name'"),
        ({"queue": "nowhere"}, "JOBS['QUEUES'] does not declare its queue nowhere."),
        ({"routing_key": "a.b"}, "Its routing key a.b is lost: choose a queue."),
        ({"one_off": True}, "It was to run only once"),
    ],
)
def test_what_someone_has_to_look_at_is_switched_off(
    old: Any, fields: dict[str, Any], note: str
) -> None:
    old("a", interval=EVERY_TWO_DAYS, **fields)
    one = only()
    assert note in one.notes[0]
    assert one.notes[1:] == [OFF]
    celery_beat.save([one])
    assert not Schedule.objects.get().enabled


def test_exchange_and_routing_key_go_along_with_a_queue(old: Any) -> None:
    old("a", interval=EVERY_TWO_DAYS, queue="high", exchange="e", routing_key="r")
    made = imported()
    assert (made.enabled, made.queue) == (True, "high")
    assert (made.exchange, made.routing_key) == ("e", "r")


def test_exchange_and_routing_key_that_lead_somewhere(old: Any, settings: Settings) -> None:
    settings.JOBS = {
        **settings.JOBS,
        "EXCHANGES": {"media": "topic"},
        "QUEUES": {**settings.JOBS["QUEUES"], "mail": {"exchange": "media", "routing_key": "#"}},
    }
    old("a", interval=EVERY_TWO_DAYS, exchange="media", routing_key="mail.new")
    made = imported()
    assert (made.enabled, made.queue) == (True, "")
    assert (made.exchange, made.routing_key) == ("media", "mail.new")


def test_what_is_lost_without_harm(old: Any) -> None:
    old("a", interval=EVERY_TWO_DAYS, exchange="e", priority=200)
    made = imported(["Its exchange e is lost.", "Its priority 200 is 9 here, the last."])
    assert (made.enabled, made.priority, made.exchange) == (True, 9, "")


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"solar": {"event": "sunrise"}}, "“sunrise” depends on the sun"),
        ({"interval": {"every": 500, "period": "microseconds"}}, "at least one second"),
        ({"interval": {"every": 1, "period": "moons"}}, "Its interval has no unit: moons"),
        ({"crontab": {"minute": "61"}}, "crontab(minute='61') can't be read"),
        ({"crontab": {"day_of_month": "13", "day_of_week": "5"}}, "days that are both"),
        ({"crontab": {"day_of_month": "31", "month_of_year": "2"}}, "This never happens"),
        ({"crontab": {"timezone": "Nowhere/Land"}}, "not a time zone"),
        ({"clocked": {"clocked_time": PAST}}, "This is past."),
        ({"interval": EVERY_TWO_DAYS, "args": "[1,"}, "Its args are not JSON: [1,"),
        ({"interval": EVERY_TWO_DAYS, "args": "{}"}, "Write a JSON list"),
        ({"interval": EVERY_TWO_DAYS, "expires": PAST}, "No run falls before this end."),
        ({"interval": EVERY_TWO_DAYS, "task": "celery.backend_cleanup"}, "jobs.prune"),
        ({}, "It has no rule."),
    ],
)
def test_what_can_not_be_imported(old: Any, fields: dict[str, Any], note: str) -> None:
    old("a", **fields)
    one = only()
    assert one.schedule is None
    assert note in " ".join(one.notes)
    assert celery_beat.save([one]) == 0


def test_columns_that_an_older_version_does_not_have(old: Any) -> None:
    old("a", crontab={"minute": "5"})
    with connection.cursor() as cursor:
        for column in ("headers", "priority", "one_off", "expire_seconds", "clocked_id"):
            cursor.execute(f"ALTER TABLE django_celery_beat_periodictask DROP COLUMN {column}")
        cursor.execute("ALTER TABLE django_celery_beat_crontabschedule DROP COLUMN timezone")
        cursor.execute("DROP TABLE django_celery_beat_clockedschedule")
    made = imported()
    assert (made.crontab, made.timezone, made.headers) == ("5 * * * *", "UTC", {})


class TestCommand:
    def test_without_the_tables(self, old: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE django_celery_beat_periodictask")
        assert "has no tables of django-celery-beat" in fail("jobs_import_celery_beat")[2]

    def test_without_apply_it_only_tells(self, old: Any) -> None:
        old("daily", crontab={"minute": "0", "hour": "6"})
        old("often", interval={"every": 10, "period": "minutes"}, task="shop.gone")
        old("sun", solar={"event": "sunset"})
        old("once", clocked={"clocked_time": FUTURE}, one_off=True)
        assert run("jobs_import_celery_beat").splitlines() == [
            "+ daily: shop.greet, 0 6 * * * (UTC)",
            "+ often: shop.gone, every 0:10:00",
            "    No task is called shop.gone here.",
            "    It is imported switched off.",
            "+ once: shop.greet, once at 2126-01-01 00:00:00+00:00",
            "- sun: “sunset” depends on the sun, and there is no such rule here.",
            "3 to import, 1 that can't be, 0 that are there already or declared. Nothing is "
            "written; --apply writes it.",
        ]
        told = json.loads(run("jobs_import_celery_beat", "--json"))
        assert not told["written"]
        shown = {one["name"]: one for one in told["schedules"]}
        assert (shown["daily"]["rule"], shown["daily"]["importable"]) == ("0 6 * * * (UTC)", True)
        assert (shown["sun"]["rule"], shown["sun"]["importable"]) == (None, False)
        assert "depends on the sun" in shown["sun"]["notes"][0]
        assert not Schedule.objects.exists()

    def test_applied_once_and_again(self, old: Any, settings: Settings) -> None:
        settings.JOBS = {
            **settings.JOBS,
            "BEAT_SCHEDULE": {"mine": {"task": "shop.greet", "schedule": 60, "args": ["me"]}},
        }
        old("daily", crontab={"minute": "0", "hour": "6"})
        old("mine", interval=EVERY_TWO_DAYS)
        printed = run("jobs_import_celery_beat", "--apply").splitlines()
        assert printed[1] == "= mine: declared in code, left alone"
        assert printed[2].startswith("1 are imported, 0 are not, 1 are there already")
        Schedule.objects.update(queue="low")
        printed = run("jobs_import_celery_beat", "--apply").splitlines()
        assert printed[0] == "= daily: there already, left alone"
        assert [(s.name, s.queue) for s in Schedule.objects.all()] == [("daily", "low")]
