"""Dead letters put back and discarded, with their ledger rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import (
    broker,
    control,
    registry,
)
from jobs.exceptions import UnknownQueue, UnknownTask, UnknownWorker
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.tasks import trace
from tests.workers import dead_letters, on_redis, put, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def test_requeued_once_the_code_knows_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = put_message(task="tests.tasks.newer", args=["from the future"], priority=9)
    work()
    (letter,) = dead_letters()
    assert TaskResult.objects.get(id=task_id).state == State.FAILURE
    monkeypatch.setitem(registry.tasks, "tests.tasks.newer", trace)
    assert control.requeue("default", letter.key) is True
    assert TaskResult.objects.get(id=task_id).state == State.PENDING
    assert dead_letters() == []
    work()
    assert list(Run.objects.values_list("label", flat=True)) == ["from the future"]
    row = TaskResult.objects.get(id=task_id)
    assert (row.state, row.error, row.error_type, row.traceback) == (State.SUCCESS, "", "", "")


def test_requeued_too_early_it_is_dead_again() -> None:
    task_id = put_message(task="tests.tasks.newer")
    work()
    assert control.requeue("default", dead_letters()[0].key)
    work()
    assert "tests.tasks.newer" in dead_letters()[0].reason
    assert TaskResult.objects.get(id=task_id).state == State.FAILURE


def test_what_cannot_be_read_can_be_put_back(settings: Settings) -> None:
    put(b"not json")
    work()
    assert control.requeue("default", dead_letters()[0].key)
    assert (on_redis(), dead_letters()) == ((1, 0), [])


def test_discarded_its_call_has_ended() -> None:
    """Else recovery would find a call that is to be run, and is nowhere."""
    with transaction.atomic():
        result = trace.delay("never")
    # As from a worker that could make no outcome of it.
    ((number, _),) = broker.get().claim("default", "w", 1, 10, 60).messages
    broker.get().dead_letter("default", "w", number, "No outcome", "w")
    assert control.discard("default", dead_letters()[0].key)
    assert (result.state, dead_letters()) == (State.REVOKED, [])


def test_discarding_what_nobody_signed_touches_no_call() -> None:
    with transaction.atomic():
        result = trace.delay("still to run")
    forged = json.dumps({"body": "[[], {}, {}]", "headers": {"task": "x", "id": result.id}})
    put(forged.encode())
    work()
    assert "BadSignature" in dead_letters()[0].reason
    TaskResult.objects.update(state=State.PENDING)
    assert control.discard("default", dead_letters()[0].key)
    assert result.state == State.PENDING


def test_what_is_gone_is_told() -> None:
    put(b"not json")
    work()
    (letter,) = dead_letters()
    assert control.discard("default", letter.key) is True
    assert control.discard("default", letter.key) is False
    assert control.requeue("default", letter.key) is False
    assert on_redis() == (0, 0)


@pytest.mark.parametrize("wrong", [None, 7, ["default"], b"default", "x" * 100_000])
def test_what_is_no_name(wrong: Any) -> None:
    with pytest.raises(UnknownQueue, match="is not declared") as of_queue:
        control.pause(wrong)
    with pytest.raises(UnknownTask, match="is known here") as of_task:
        control.time_limit(wrong, soft=1)
    with pytest.raises(UnknownTask, match="is known here"):
        control.rate_limit(wrong, "1/s")
    with pytest.raises(UnknownWorker):
        control.workers.command(wrong, control.workers.Act.QUIET)
    assert max(len(str(one.value)) for one in (of_queue, of_task)) < 500


def test_what_is_no_act() -> None:
    with pytest.raises(ValueError, match="fly"):
        control.workers.command("w", "fly")  # type: ignore[arg-type]


def test_an_undeclared_queue_is_refused() -> None:
    for verb in (control.requeue, control.discard):
        with pytest.raises(UnknownQueue, match="Did you mean 'default'"):
            verb("defualt", "1-1")
