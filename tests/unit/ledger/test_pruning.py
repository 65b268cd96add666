"""Ages, and the order of ids. What is deleted is for the tests of integration."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pytest_django import Settings

from jobs import conf, registry
from jobs.conf import Conf
from jobs.ledger import pruning
from jobs.message import new_id

DAY = 86_400.0
USUAL = {"SUCCESS": 7 * DAY, "FAILURE": 30 * DAY, "REVOKED": 7 * DAY}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, USUAL),
        ({"SUCCESS": 60}, {**USUAL, "SUCCESS": 60.0}),
        ({"FAILURE": dt.timedelta(days=1)}, {**USUAL, "FAILURE": DAY}),
        ({"REVOKED": None}, {**USUAL, "REVOKED": None}),
        (3600, dict.fromkeys(USUAL, 3600.0)),
        (dt.timedelta(days=1), dict.fromkeys(USUAL, DAY)),
        (None, dict.fromkeys(USUAL, None)),
    ],
)
def test_ages_of_the_settings(given: Any, meant: dict[str, float | None]) -> None:
    found, problems = conf.parse({"RESULT_EXPIRES": given})
    assert problems == []
    assert found.result_expires == meant


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("RESULT_EXPIRES", {"SUCESS": 1}, "no end of a task. Did you mean 'SUCCESS'?"),
        ("RESULT_EXPIRES", {"PENDING": 1}, "has 'PENDING', which is no end of a task"),
        ("RESULT_EXPIRES", {"SUCCESS": "1"}, "must be seconds, a timedelta or None, not '1'"),
        ("RESULT_EXPIRES", {"SUCCESS": -1}, "must be at least 0 seconds, not -1"),
        ("RESULT_EXPIRES", "1", "must be seconds, a timedelta or None, not '1'"),
        ("SCHEDULE_RUNS_EXPIRE", True, "must be seconds, a timedelta or None, not True"),
        ("SCHEDULE_RUNS_EXPIRE", float("inf"), "must be seconds"),
    ],
)
def test_ages_that_are_none(key: str, value: Any, told: str) -> None:
    found, [problem] = conf.parse({key: value})
    assert problem.startswith(f"JOBS[{key!r}] ")
    assert told in problem
    assert found == Conf()


def test_our_ids_are_in_the_order_of_sending() -> None:
    before = dt.datetime.now(dt.UTC)
    made = new_id()
    after = dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=1)
    assert pruning.first_id(before) <= made < pruning.first_id(after)


@pytest.mark.parametrize("age", [10**11, 1e300])
def test_an_age_from_before_the_calendar(age: float, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "RESULT_EXPIRES": age, "SCHEDULE_RUNS_EXPIRE": age}
    own = [t for t in registry.tasks.values() if t.options.result_expires != "settings"]
    assert own == []
    assert list(pruning.parts(dt.datetime.now(dt.UTC))) == []


def test_nothing_is_pruned_if_nothing_is_to_be(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "RESULT_EXPIRES": None, "SCHEDULE_RUNS_EXPIRE": None}
    assert list(pruning.parts(dt.datetime.now(dt.UTC))) == []
