"""What a running call does about its own workflow."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import AsyncResult, Signature, Task, broker, chord, group, task
from jobs.exceptions import ChordError, WorkflowError
from jobs.models import TaskGroup, TaskResult
from jobs.states import State
from tests.integration.test_chords import celery_call, celery_message, set_size
from tests.models import Run
from tests.tasks import add, echo, fail, trace
from tests.workers import put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(bind=True)
def replaced(self: Task[..., Any], how: str) -> str:
    calls: dict[str, Signature] = {
        "task": add.s(1, 2),
        "chain": add.s(1, 2) | add.s(3),
        "group": group(add.s(1, 2), add.s(3, 4)),
        "chord": chord([add.s(1, 2), add.s(3, 4)], echo.s()),
        "empty": chord([], echo.s()),
        "again": replaced.s("task"),
        "failure": fail.s("boom"),
    }
    Run.objects.create(label=how)
    self.replace(calls[how])


@task(bind=True, atomic=True)
def replaced_atomically(self: Task[..., Any]) -> None:
    self.replace(add.s(1, 2))


@task(bind=True)
def adds(self: Task[..., Any], count: int) -> str:
    for n in range(count):
        self.add_to_chord(add.s(n, n) | add.s(1))
    return "added"


RESULTS = {
    "task": 3,
    "chain": 6,
    "group": [3, 7],
    "chord": [3, 7],
    "empty": [],
    "again": 3,
}


@pytest.mark.parametrize("how", RESULTS)
def test_the_other_call_ends_under_its_id(how: str) -> None:
    result = replaced.delay(how)
    with transaction.atomic():  # which leaves a row
        other = (replaced.s(how) | echo.s()).delay()
    work()
    assert result.get(timeout=0) == other.get(timeout=0) == RESULTS[how]
    assert other.parent.get(timeout=0) == RESULTS[how]


def test_it_stays_a_member_of_its_chord() -> None:
    result = chord([replaced.s("group"), echo.s(1), replaced.s("again")], echo.s()).delay()
    work()
    assert result.get(timeout=0) == [[3, 7], 1, 3]


def test_callbacks_and_errbacks_are_kept() -> None:
    replaced.apply_async(("chord",), link=trace.si("linked"))
    replaced.apply_async(("failure",), link_error=trace.si("told"))
    work()
    labels = set(Run.objects.values_list("label", flat=True))
    assert labels == {"chord", "failure", "linked", "told"}


def test_its_failure_is_the_calls() -> None:
    result = (replaced.s("failure") | trace.si("never")).delay()
    work()
    assert AsyncResult[Any](result.id).state == State.FAILURE
    with pytest.raises(ValueError, match="boom"):
        result.parent.get(timeout=0)


def test_run_twice_it_is_replaced_once() -> None:
    with transaction.atomic():
        result = replaced.delay("group")
    (raw,) = broker.get().scan("default")
    put(raw)
    work()
    put(raw)
    work()
    assert result.get(timeout=0) == [3, 7]
    assert TaskResult.objects.filter(task=add.name).count() == 2


def test_an_atomic_task_is_not_replaced() -> None:
    result = replaced_atomically.delay()
    work()
    with pytest.raises(WorkflowError, match="is atomic"):
        result.get(timeout=0)
    with pytest.raises(RuntimeError, match="not being run"):
        replaced.replace(add.s(1, 2))


def test_members_are_added() -> None:
    result = chord([echo.s("a"), adds.s(3), echo.s("b")], echo.s()).delay()
    work()
    assert result.get(timeout=0) == ["a", "added", "b", 1, 3, 5]


def test_run_twice_it_adds_once() -> None:
    result = chord([adds.s(2)], echo.s()).delay()
    (raw,) = broker.get().scan("default")
    put(raw)
    work()
    assert result.get(timeout=0) == ["added", 1, 3]


def test_there_must_be_a_chord_to_add_to() -> None:
    result = adds.delay(1)
    work()
    with pytest.raises(WorkflowError, match="no member of a chord"):
        result.get(timeout=0)


def test_an_added_member_that_fails() -> None:
    result = chord([adds_a_failure.s()], echo.s()).delay()
    work()
    with pytest.raises(ChordError, match="boom"):
        result.get(timeout=0)


@task(bind=True)
def adds_a_failure(self: Task[..., Any]) -> None:
    self.add_to_chord(fail.s("boom"))


@task(bind=True)
def adds_once(self: Task[..., Any], value: Any) -> Any:
    if value == "first":
        self.add_to_chord(echo.s("added"))
    return value


def test_a_member_is_added_before_another_has_ended() -> None:
    result = chord([adds_once.s("first"), adds_once.s("second")], echo.s()).delay()
    behind = (add.s(1, 2) | group(adds_once.si("first"), adds_once.si("second")) | echo.s()).delay()
    work(threads=1)
    assert result.get(timeout=0) == ["first", "second", "added"]
    assert behind.get(timeout=0) == ["first", "second", "added"]


@pytest.mark.parametrize("known_at", [0, 1])
def test_a_member_is_added_to_the_chord_of_a_celery_client(
    known_at: int, settings: Settings
) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}, "low": {}, "high": {}}}
    for index, value in enumerate(["first", "second"]):
        if known_at == index:
            set_size(2)
        embed = {"chord": celery_call(echo.name, "b")}
        fields = {"group": "G", "group_index": index, "embed": embed}
        put(celery_message(f"m{index}", adds_once.name, [value], **fields))
        work()
    assert AsyncResult[Any]("b").get(timeout=0) == ["first", "second", "added"]
    assert not TaskGroup.objects.exists()
