"""https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

import jobs
from jobs import (
    add_periodic_task,
    crontab,
    registry,
    schedule,
    schedules,
    task,
)
from jobs.beat import sending
from jobs.exceptions import ConfigurationError
from jobs.models import Schedule
from jobs.schedules import declared
from jobs.timing.crontab import parse
from tests.integration.beats import no_other_schedules  # noqa: F401
from tests.integration.celery_guides.blocks import Refused

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The guide's, and nothing that is declared besides."""
    monkeypatch.setattr(declared, "_added", {})

    @task(name="tasks.add")
    def tasks_add(x: int, y: int) -> None: ...

    @task(name="tasks.test")
    def tasks_test(arg: str) -> None: ...

    yield
    del registry.tasks["tasks.add"], registry.tasks["tasks.test"]


#: The guide's table: how it is written, and what it means.
CRONTABS = [
    ({}, range(60), range(24), None),
    ({"minute": 0, "hour": 0}, [0], [0], None),
    ({"minute": 0, "hour": "*/3"}, [0], range(0, 24, 3), None),
    ({"minute": 0, "hour": "0,3,6,9,12,15,18,21"}, [0], range(0, 24, 3), None),
    ({"minute": "*/15"}, [0, 15, 30, 45], range(24), None),
    ({"day_of_week": "sunday"}, range(60), range(24), lambda d: d.isoweekday() == 7),
    (
        {"minute": "*", "hour": "*", "day_of_week": "sun"},
        range(60),
        range(24),
        lambda d: d.isoweekday() == 7,
    ),
    (
        {"minute": "*/10", "hour": "3,17,22", "day_of_week": "thu,fri"},
        range(0, 60, 10),
        [3, 17, 22],
        lambda d: d.isoweekday() in (4, 5),
    ),
    ({"minute": 0, "hour": "*/2,*/3"}, [0], [h for h in range(24) if not h % 2 or not h % 3], None),
    ({"minute": 0, "hour": "*/5"}, [0], range(0, 24, 5), None),
    ({"minute": 0, "hour": "*/3,8-17"}, [0], sorted({*range(0, 24, 3), *range(8, 18)}), None),
    ({"minute": 0, "hour": 0, "day_of_month": "2"}, [0], [0], lambda d: d.day == 2),
    ({"minute": 0, "hour": 0, "day_of_month": "2-30/2"}, [0], [0], lambda d: d.day % 2 == 0),
    (
        {"minute": 0, "hour": 0, "day_of_month": "1-7,15-21"},
        [0],
        [0],
        lambda d: d.day in (*range(1, 8), *range(15, 22)),
    ),
    (
        {"minute": 0, "hour": 0, "day_of_month": "11", "month_of_year": "5"},
        [0],
        [0],
        lambda d: (d.day, d.month) == (11, 5),
    ),
    ({"minute": 0, "hour": 0, "month_of_year": "*/3"}, [0], [0], lambda d: d.month % 3 == 1),
    (
        {"hour": 7, "minute": 30, "day_of_week": 1},
        [30],
        [7],
        lambda d: d.isoweekday() == 1,
    ),
]


@pytest.mark.parametrize(("fields", "minutes", "hours", "day"), CRONTABS)
def test_crontabs(fields: dict[str, Any], minutes: Any, hours: Any, day: Any) -> None:
    start = dt.datetime(2027, 1, 1)  # noqa: DTZ001
    dates = (start + dt.timedelta(days=n) for n in range(370))
    meant = [
        date.replace(hour=hour, minute=minute)
        for date in dates
        if day is None or day(date)
        for hour in hours
        for minute in minutes
    ][:2000]
    times = parse(crontab(**fields).text).times(start - dt.timedelta(seconds=1))
    assert list(itertools.islice(times, len(meant))) == meant


def test_crontabs_with_places() -> None:
    assert crontab(0, 0, day_of_month="1-7,15-21").text == "0 0 1-7,15-21 * *"
    assert crontab(0, 0, month_of_year="*/3").text == "0 0 * */3 *"


def entry(settings: Settings, **fields: Any) -> list[str]:
    """What is wrong with this entry of ``beat_schedule``."""
    made = {"task": "tasks.add", "schedule": 30.0, "args": (16, 16), **fields}
    settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": {"made": made}}
    schedules.synchronise()
    return [text for text in schedules.problems() if "'made'" in text]


#: Further keys of an entry of ``beat_schedule``.
ENTRIES: list[dict[str, Any]] = [
    {},
    {"schedule": dt.timedelta(seconds=30)},
    {"schedule": crontab(hour=7, minute=30, day_of_week=1)},
    {"kwargs": {"y": 1}, "args": [2]},
    {"options": {"queue": "high", "expires": 10, "priority": 3, "headers": {"a": 1}}},
    {"options": {"queue": "high", "routing_key": "high", "exchange": "high"}},
    {"options": {"serializer": "json", "compression": None}},
    {"relative": False},
    {"options": {"expires": dt.timedelta(minutes=1)}},
    {"schedule": schedule(10)},
    {"schedule": schedule(run_every=dt.timedelta(seconds=10))},
    {"schedule": crontab.from_string("30 7 * * 1")},
    {"options": {"shadow": "sum", "time_limit": 60, "countdown": 5, "ignore_result": True}},
    {"options": {"retry": True, "retry_policy": {"max_retries": 3}, "label": "nightly"}},
]


@pytest.mark.parametrize("fields", ENTRIES)
def test_entries(settings: Settings, fields: dict[str, Any]) -> None:
    assert entry(settings, **fields) == []
    assert Schedule.objects.filter(name="made", task="tasks.add").exists()


def test_add_periodic_task() -> None:
    test = registry.tasks["tasks.test"]
    add_periodic_task(10.0, test.s("hello"), name="add every 10")
    add_periodic_task(30.0, test.s("hello"), name="add every 30")
    add_periodic_task(30.0, test.s("world"), expires=10)
    add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), test.s("Happy Mondays!"))
    add_periodic_task(
        10.0, test.signature(("x",), queue="high", routing_key="high"), serializer="json"
    )
    name = add_periodic_task(10.0, test, ("hello",), name="by its arguments")
    add_periodic_task(10.0, test.s(), args=("x",), kwargs={}, name="both", queue="high")
    add_periodic_task(10.0, test.s("x"), name="options", time_limit=60, link=test.s())
    schedules.synchronise()
    assert Schedule.objects.filter(task="tasks.test").count() == 8
    assert Schedule.objects.get(name=name).args == ["hello"]
    assert Schedule.objects.get(name="both").args == ["x"]
    assert Schedule.objects.get(name="options").options == {
        "link": test.s().as_dict(),
        "time_limit": 60,
    }


def test_any_option_of_a_call(settings: Settings) -> None:
    later = registry.tasks["tasks.test"].s()
    options = {"shadow": "sum", "time_limit": 60, "countdown": 5, "label": "x", "link": later}
    assert entry(settings, options={**options, "stamped_headers": ["a"], "a": "b"}) == []
    row = Schedule.objects.get(name="made")
    due = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    sent = sending.run_of(row, due)
    assert (sent.shadow, sent.timelimit, sent.label) == ("sum", (60, None), "x")
    assert sent.eta == due + dt.timedelta(seconds=5)
    assert sent.embed["callbacks"] == [later.as_dict()]
    assert sent.headers["stamps"] == {"a": "b"}


def _solar() -> Any:
    """``solar('sunset', -37.81753, 144.96715)``, which Celery makes only with another package."""
    kind = pytest.importorskip("celery.schedules").solar
    made = kind.__new__(kind)
    made.event, made.lat, made.lon = "sunset", -37.81753, 144.96715
    return made


REFUSED = {
    "relative": Refused("{'relative': True}", "due times count from start_at", guide=True),
    "serializer": Refused("{'options': {'serializer': 'pickle'}}", "always JSON"),
    "task_id": Refused("{'options': {'task_id': 'x'}}", "'task_id' is not known to schedules"),
    "a wrong value": Refused("{'options': {'time_limit': -1}}", "time_limit"),
    "an undeclared queue of kombu's": Refused(
        "{'options': {'queue': Queue('hihg')}}", "Did you mean 'high'?"
    ),
    "no option": Refused("{'options': {'quue': 'high'}}", "Did you mean 'queue'?"),
    "no key": Refused("{'shedule': 5}", "Did you mean 'schedule'?"),
    "a relative interval": Refused(
        "{'schedule': celery.schedule(10, relative=True)}", "due times count from start_at"
    ),
    "the sun": Refused("{'schedule': solar()}", "no schedules by the sun", guide=True),
}


@pytest.mark.parametrize("block", REFUSED.values(), ids=REFUSED)
def test_it_says_what_to_write_instead(block: Refused, settings: Settings) -> None:
    celery = pytest.importorskip("celery.schedules")
    names = {"celery": celery, "solar": _solar, "Queue": pytest.importorskip("kombu").Queue}
    (told,) = entry(settings, **eval(block.code, names))
    assert block.told in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"serializer": "pickle"}, "always JSON"),
        ({"quue": "high"}, "Did you mean 'queue'?"),
    ],
)
def test_options_of_add_periodic_task(options: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        add_periodic_task(10.0, registry.tasks["tasks.test"].s("x"), **options)


def test_only_calls_of_one_task() -> None:
    test = registry.tasks["tasks.test"]
    with pytest.raises(ConfigurationError, match="a call of one task, not a chain"):
        add_periodic_task(10.0, test.s("x") | test.s())


def test_what_is_not_to_be_imported() -> None:
    with pytest.raises(ImportError, match="write seconds, a timedelta or"):
        jobs.solar  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: schedule(10, relative=True), "due times count from start_at"),
        (lambda: schedule("10"), "write seconds or a timedelta"),  # type: ignore[arg-type]
        (lambda: crontab.from_string("0 0 * *"), "five fields"),
        (lambda: crontab.from_string("0 0 * * 9"), "day_of_week='9'"),
    ],
)
def test_rules_that_can_not_be(made: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        made()


def test_a_crontab_of_a_text() -> None:
    assert crontab.from_string("0 0 * * 0") == crontab(minute=0, hour=0, day_of_week="sunday")
    both = crontab.from_string("0 0 1-7 * mon")
    assert both == crontab(0, 0, day_of_month="1-7", day_of_week="mon")
    assert isinstance(both, crontab)
