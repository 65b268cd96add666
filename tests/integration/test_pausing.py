"""Queues and tasks that are paused, with the real worker."""

from __future__ import annotations

import logging

import pytest

from jobs import broker, control
from jobs.exceptions import UnknownQueue, UnknownTask
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.tasks import add, async_add, echo, trace
from tests.workers import on_redis, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def ran() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


def test_a_worker_leaves_a_paused_queue_alone() -> None:
    control.pause("default", by="ada", why="the shop moves")
    trace.delay("waits")
    trace.apply_async(("other",), queue="low")
    work()  # and doesn't wait for it: a burst ends
    assert ran() == ["other"]
    assert on_redis() == (1, 0)
    said = control.paused()["default"]
    assert (said.by, said.why) == ("ada", "the shop moves")
    assert control.resume("default") is True
    assert control.paused() == {}
    work()
    assert ran() == ["other", "waits"]
    assert control.resume("default") is False


def test_a_worker_leaves_a_paused_task_alone_on_every_queue() -> None:
    control.pause_task(trace.name, by="ada", why="it mails twice")
    trace.delay("a")
    trace.apply_async(("b",), queue="low", priority=9)
    other = add.delay(1, 2)
    work()
    assert (ran(), other.get(timeout=1)) == ([], 3)
    assert (on_redis("default"), broker.get().stats("default").due) == ((0, 0), 1)
    assert control.paused_tasks()[trace.name].why == "it mails twice"
    assert control.paused() == {}
    work()
    assert ran() == []
    assert control.resume_task(trace.name) is True
    work()
    assert sorted(ran()) == ["a", "b"]
    assert control.resume_task(trace.name) is False


def test_async_tasks_pause_as_well() -> None:
    control.pause_task(async_add.name)
    result = async_add.delay(1, 2)
    work()
    assert not result.ready()
    control.resume_task(async_add.name)
    work()
    assert result.get(timeout=1) == 3


def test_two_paused_tasks_are_resumed_one_by_one() -> None:
    """Parked messages come back together; those of the other are parked again."""
    control.pause_task(trace.name)
    control.pause_task(echo.name)
    trace.delay("a")
    result = echo.delay("b")
    work()
    control.resume_task(trace.name)
    work()
    assert (ran(), result.ready()) == (["a"], False)
    assert list(control.paused_tasks()) == [echo.name]
    control.resume_task(echo.name)
    work()
    assert result.get(timeout=1) == "b"


def test_a_call_that_is_revoked_while_it_is_parked() -> None:
    control.pause_task(trace.name)
    result = trace.delay("never")
    work()
    result.revoke()
    control.resume_task(trace.name)
    work()
    assert ran() == []
    assert TaskResult.objects.get(id=result.id).state == State.REVOKED


def test_names_that_there_are_not() -> None:
    with pytest.raises(UnknownQueue, match="Did you mean 'default'"):
        control.pause("defualt")
    with pytest.raises(UnknownQueue):
        control.resume("nowhere")
    with pytest.raises(UnknownTask, match=r"Did you mean 'tests\.tasks\.trace'"):
        control.pause_task("tests.tasks.tracee")
    # One that the code no longer has may be paused still.
    assert control.resume_task("tests.tasks.gone") is False
    assert control.resume_task("") is False


def test_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "jobs.control")
    control.pause("low", by="ada", why="the shop moves")
    control.resume("low")
    assert caplog.messages == [
        "queue low is paused by ada: the shop moves",
        "queue low is resumed",
    ]
