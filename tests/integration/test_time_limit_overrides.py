"""Time limits that are set at run time, with the real worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs import Task, broker, control, task
from jobs.control import TimeLimitOverride
from jobs.exceptions import UnknownTask
from jobs.models import TaskResult
from jobs.worker.claim.admission import Overrides
from tests.integration.commands.helpers import fail, run
from tests.tasks import add
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(bind=True, name="limits.seen", soft_time_limit=20, time_limit=30)
def seen(self: Task[..., Any]) -> Any:
    return [self.soft_time_limit, self.time_limit]


def run_one() -> Any:
    result = seen.delay()
    work()
    return json.loads(TaskResult.objects.get(id=result.id).result)


def test_they_hold_until_they_are_taken_back() -> None:
    control.time_limit(seen.name, soft=1.5, hard=60, by="ada")
    assert run_one() == [1.5, 60]
    assert (seen.soft_time_limit, seen.time_limit) == (20, 30)  # outside of the worker
    control.time_limit(seen.name, hard=5)
    assert run_one() == [None, 5]
    control.time_limit(seen.name)
    assert run_one() == [20, 30]


def test_a_soft_one_that_would_never_strike() -> None:
    with pytest.raises(ValueError, match="5 seconds, must be shorter than the hard one"):
        control.time_limit(seen.name, soft=5, hard=5)


def test_a_worker_that_goes_on_follows_them() -> None:
    overrides = Overrides()
    for now, limits in ((0.0, {"soft": 2}), (10.0, {}), (20.0, {"hard": 3})):
        control.time_limit(seen.name, **limits)
        overrides.look(now)
        expected = (limits.get("soft"), limits.get("hard")) if limits else (20, 30)
        assert (seen.soft_time_limit, seen.time_limit) == expected
    overrides.end()
    assert (seen.soft_time_limit, seen.time_limit) == (20, 30)


def test_beside_a_rate() -> None:
    control.rate_limit(seen.name, "100/s")
    control.time_limit(seen.name, soft=2, by="ada")
    assert list(control.rate_limits()) == list(control.time_limits()) == [seen.name]
    assert run_one() == [2, None]
    control.rate_limit(seen.name, None)
    assert run_one() == [2, None]
    assert control.rate_limits() == {}


def test_what_is_kept() -> None:
    control.time_limit(seen.name, soft=2, by="ada")
    said = control.time_limits()[seen.name]
    assert (said.soft, said.hard, said.by, str(said)) == (2, None, "ada", "soft 2 s, hard none")
    for text in (b"", b"[]", b'{"soft":-1,"hard":null,"by":"","at":"2020-01-01"}', b'{"soft":1}'):
        broker.get().set_override("\0time other", text)
        assert list(control.time_limits()) == [seen.name]
    assert run_one() == [2, None]
    assert isinstance(said, TimeLimitOverride)


@pytest.mark.parametrize(
    ("limits", "error"),
    [({"soft": 0}, ValueError), ({"hard": -1}, ValueError), ({"soft": "x"}, TypeError)],
)
def test_what_is_no_limit(limits: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seconds"):
        control.time_limit(seen.name, **limits)
    assert control.time_limits() == {}


def test_of_no_task() -> None:
    for limits in ({}, {"soft": 1}):
        with pytest.raises(UnknownTask):
            control.time_limit("no.such", **limits)
    # One that the code no longer has can still be taken back.
    broker.get().set_override("\0time gone", b"{}")
    control.time_limit("gone")
    assert broker.get().overrides() == {}


def test_the_command() -> None:
    run("jobs_time_limit", add.name, "--soft", "1", "--by", "ada")
    printed = run("jobs_time_limit")
    assert printed.startswith(f"task {add.name}: soft 1 s, hard none, set by ada at ")
    assert run("jobs_time_limit", seen.name) == ""
    shown = json.loads(run("jobs_time_limit", "--json"))["time_limits"][add.name]
    assert (shown["soft"], shown["hard"], shown["by"]) == (1.0, None, "ada")
    text = f"Task {add.name} has the time limits of its code.\n"
    assert run("jobs_time_limit", add.name, "--reset") == text
    assert control.time_limits() == {}
    assert "one of them" in fail("jobs_time_limit", add.name, "--reset", "--soft", "1")[2]
    assert "Name a task" in fail("jobs_time_limit", "--soft", "1")[2]
    assert "no.such" in fail("jobs_time_limit", "no.such")[2]
