"""`crontab(…)` means what Celery's means: compared with tables made by hand, and with Celery."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable
from typing import Any

import pytest
from croniter import croniter

from jobs.exceptions import ConfigurationError
from jobs.timing import Rule
from jobs.timing.celery import Crontab, crontab

#: Field → first and last value, and place in the text of a crontab.
FIELDS = {
    "minute": (0, 59, 0),
    "hour": (0, 23, 1),
    "day_of_month": (1, 31, 2),
    "month_of_year": (1, 12, 3),
    "day_of_week": (0, 6, 4),
}


def values_of(text: str, field: str) -> set[int]:
    """What croniter, which beat goes by, makes of one field of a crontab."""
    first, last, place = FIELDS[field]
    expanded = croniter.expand(text)[0][place]
    return set(range(first, last + 1)) if expanded == ["*"] else {int(value) for value in expanded}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "* * * * *"),
        ({"minute": 0}, "0 * * * *"),
        ({"hour": 7, "minute": 30, "day_of_week": 1}, "30 7 * * 1"),
        ({"minute": "*/15"}, "*/15 * * * *"),
        ({"minute": "0,30", "hour": "8-17/3"}, "0,30 8-17/3 * * *"),
        ({"minute": [30, 0]}, "0,30 * * * *"),
        ({"hour": range(8, 18)}, "* 8-17 * * *"),
        ({"minute": {1, 2, 3, 7}}, "1-3,7 * * * *"),
        ({"day_of_week": "mon-fri"}, "* * * * mon-fri"),
        ({"day_of_week": "MON, Wed"}, "* * * * mon,wed"),
        ({"day_of_week": "monday,friday"}, "* * * * 1,5"),
        ({"day_of_week": "fri-mon"}, "* * * * 0-1,5-6"),
        ({"hour": "22-2"}, "* 0-2,22-23 * * *"),
        ({"hour": "22-4/2"}, "* 0,2,4,22 * * *"),
        ({"month_of_year": "jan-mar,december"}, "* * * 1-3,12 *"),
        ({"month_of_year": "*/3"}, "* * * */3 *"),
        ({"minute": "0-59", "hour": list(range(24))}, "* * * * *"),
    ],
)
def test_text(given: dict[str, Any], text: str) -> None:
    assert crontab(**given) == Crontab(text)
    assert str(crontab(**given)) == text


def test_the_order_of_arguments_is_celerys() -> None:
    assert crontab(1, 2, 3, "*", 5).text == "1 2 * 5 3"


def test_a_zone_of_its_own() -> None:
    assert crontab(hour=7, timezone="Asia/Shanghai") == Crontab("* 7 * * *", "Asia/Shanghai")


@pytest.mark.parametrize(
    ("days", "weekdays", "text"),
    [
        ("1-7", "mon", "* * * * 1#1"),
        ("1-7,15-21", 1, "* * * * 1#1,1#3"),
        ("8-14", "mon,tue", "* * * * 1#2,2#2"),
        ("29-31", "fri", "* * * * 5#5"),
        ("1-31", "mon-fri", "* * * * mon-fri"),
        ("*/2", "mon", "* * */2 * mon"),
        ("13", "0-6", "* * 13 * *"),
        ("1,15", "*/2", "* * 1,15 * */2"),
    ],
)
def test_both_days_must_fit_as_in_celery(days: str, weekdays: Any, text: str) -> None:
    made = crontab(day_of_month=days, day_of_week=weekdays)
    assert made.text == text
    month, week = values_of(f"* * {days} * *", "day_of_month"), set()
    for part in str(weekdays).split(","):
        week |= values_of(f"* * * * {part}", "day_of_week")
    day, expected = dt.datetime(2026, 1, 1), []  # noqa: DTZ001
    while day.year < 2028:
        if day.day in month and day.isoweekday() % 7 in week:
            expected.append(day)
        day += dt.timedelta(days=1)
    assert dates_of(made.text.replace("* *", "0 0", 1), expected[-1]) == expected


def dates_of(text: str, last: dt.datetime) -> list[dt.datetime]:
    times = croniter(text, dt.datetime(2025, 12, 31, 12), implement_cron_bug=True)  # noqa: DTZ001
    found = []
    while (at := times.get_next(dt.datetime)) <= last:
        found.append(at)
    return found


def test_days_that_no_crontab_combines() -> None:
    with pytest.raises(ConfigurationError, match=r"'1-7' with 'mon' is the first Monday"):
        crontab(day_of_month=13, day_of_week="fri")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("minute", 60),
        ("minute", -1),
        ("minute", "5/15"),
        ("minute", "*/0"),
        ("minute", "1-"),
        ("minute", ""),
        ("minute", "1,,2"),
        ("minute", "mon"),
        ("minute", None),
        ("minute", 1.5),
        ("minute", True),
        ("minute", []),
        ("minute", ["1"]),
        ("minute", "L"),
        ("hour", 24),
        ("day_of_month", 0),
        ("day_of_week", 7),
        ("day_of_week", "mon#1"),
        ("month_of_year", "jam"),
    ],
)
def test_what_can_not_be_read_is_refused_at_the_call(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        crontab(**{field: value})
    first, last, _ = FIELDS[field]
    assert f"crontab({field}={value!r}) can't be read: use {first} to {last}" in str(refused.value)


def celery_specs(field: str, count: int) -> Iterable[str]:
    """Random texts of Celery's grammar, the same ones each time."""
    first, last, _ = FIELDS[field]
    dice = random.Random(field)

    def part() -> str:
        a, b = dice.randint(first, last), dice.randint(first, last)
        return dice.choice(["*", f"*/{dice.randint(1, last)}", str(a), f"{a}-{b}", f"{a}-{b}/2"])

    for _n in range(count):
        yield ",".join(part() for _m in range(dice.randint(1, 3)))


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_celerys_values(field: str) -> None:
    schedules = pytest.importorskip("celery.schedules", reason="Celery is not installed")
    first, last, _ = FIELDS[field]
    parser = schedules.crontab_parser(last - first + 1, first)
    for spec in celery_specs(field, 300):
        assert values_of(crontab(**{field: spec}).text, field) == parser.parse(spec), spec


def test_whole_crontabs_are_due_when_celerys_are() -> None:
    schedules = pytest.importorskip("celery.schedules", reason="Celery is not installed")
    dice = random.Random(5)

    def spec(first: int, last: int) -> str:
        a, b = dice.randint(first, last), dice.randint(first, last)
        step = dice.randint(1, last)
        return dice.choice(["*", f"*/{step}", str(a), f"{a}-{b}", f"{a}-{b}/3", f"{a},{b}"])

    for _n in range(300):
        given = {"minute": spec(0, 59), "hour": spec(0, 23), "month_of_year": spec(1, 12)}
        given |= dice.choice([{"day_of_week": spec(0, 6)}, {"day_of_month": spec(1, 28)}])
        after = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
            minutes=dice.randint(0, 500_000)
        )
        celerys = schedules.crontab(**given, nowfun=lambda after=after: after)
        start, delta, _ = celerys.remaining_delta(after, tz=dt.UTC)
        assert Rule(crontab=crontab(**given).text).following(after) == start + delta, given
