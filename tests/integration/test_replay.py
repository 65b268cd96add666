"""A message that somebody copied, and puts on its queue once more, is known by its id."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from jobs import broker
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.tasks import quiet_trace, trace
from tests.workers import on_redis, put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@pytest.fixture(autouse=True)
def _old_at_once(settings: Settings) -> None:
    """As the copy of a message is that isn't just being sent."""
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0.0}


def copied(task: Any) -> bytes:
    """What somebody saw who can read Redis."""
    task.delay("once")
    (raw,) = broker.get().scan("default")
    return raw


def labels() -> list[str]:
    return list(Run.objects.values_list("label", flat=True))


def test_it_is_not_run_again() -> None:
    raw = copied(trace)
    work()
    row = TaskResult.objects.values().get()
    for _ in range(2):
        put(raw)
        work()
    assert labels() == ["once"]
    assert TaskResult.objects.values().get() == row
    assert (row["state"], on_redis()) == (State.SUCCESS, (0, 0))


def test_one_that_leaves_no_row_is_not_known() -> None:
    """Said in the guarantees, and therefore tested."""
    raw = copied(quiet_trace)
    work()
    put(raw)
    work()
    assert labels() == ["once", "once"]
