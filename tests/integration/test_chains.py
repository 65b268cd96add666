"""What follows a task: the rest of its chain, its callbacks and errbacks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import (
    AsyncResult,
    broker,
    chain,
    control,
    message,
    task,
)
from jobs.exceptions import TaskRevoked
from jobs.ledger import publish
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.tasks import add, echo, fail, trace
from tests.workers import on_redis, put, rolled_back, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(ignore_result=True)
def quiet(value: Any) -> Any:
    Run.objects.create(label="quiet")
    return value


@task(atomic=True)
def atomic_add(a: int, b: int) -> int:
    if a < 0:
        raise ValueError("negative")
    return a + b


@task
def fails_until_mended(value: int) -> int:
    if not Run.objects.filter(label="mended").exists():
        raise ValueError("not yet")
    return value + 1


@task
def note(*args: Any) -> None:
    Run.objects.create(label=json.dumps(args))


@task
def note_id(task_id: str, label: str) -> None:
    note.run(task_id, label)


@task
def note_error(request: Any, error: BaseException, traceback: str, label: str) -> None:
    note.run(request.id, list(request.args), repr(error), "in fail" in traceback, label)


note_error_whole = task(note_error.run, name="note_error_whole", atomic=True)


@task
def fail_at_length(text: str) -> None:
    raise ValueError(f"{len(text)} characters")


@task(sensitive=["password"])
def fail_secretly(password: str, text: str) -> None:
    fail.run(text)


def notes() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


def states(last: AsyncResult[Any]) -> list[str]:
    """Of a chain, from its first call to its last."""
    found, one = [], last
    while one is not None:
        found.append(AsyncResult(one.id).state)  # a handle remembers an end that it has seen
        one = one.parent  # type: ignore[assignment]
    return found[::-1]


def test_each_gets_the_result_of_the_one_before() -> None:
    last = (add.s(1, 2) | add.s(3) | echo.si("other") | add.s(" one")).delay()
    work()
    assert last.get(timeout=0) == "other one"
    assert last.parent is not None
    assert last.parent.parent is not None
    assert last.parent.parent.get(timeout=0) == 6
    assert states(last) == [State.SUCCESS] * 4
    roots = {row.id for row in TaskResult.objects.all()}
    assert len(roots) == 4


def test_arguments_and_options_of_a_chain(settings: Settings) -> None:
    last = chain(add.s(2), add.s(3)).apply_async((1,), queue="low", task_id="the-last")
    assert on_redis("low") == (1, 0)
    work()
    assert (last.id, last.get(timeout=0)) == ("the-last", 6)


def test_options_of_what_follows() -> None:
    later = add.s(3).set(countdown=3600, time_limit=9, soft_time_limit=4.5, priority=6)
    (add.s(1, 2) | later).delay()
    work()
    (waiting,) = broker.get().browse("default", due=True)
    sent = message.decode(waiting.raw, "default")
    assert (sent.args, sent.timelimit, sent.priority) == ([3, 3], (9, 4.5), 6)


def test_a_chain_is_part_of_the_transaction() -> None:
    with rolled_back():
        (trace.s("never") | trace.si("never either")).delay()
    with transaction.atomic():
        last = (trace.s("first") | trace.si("second")).delay()
        assert on_redis() == (0, 0)
    work()
    assert (notes(), states(last)) == (["first", "second"], [State.SUCCESS] * 2)


def test_callbacks() -> None:
    add.apply_async((1, 2), link=[note.s("a"), note.si("b")])
    add.apply_async((3, 4), link=note.s("c").set(link=note.s("after c")))
    work()
    assert sorted(notes()) == ['["b"]', '[3, "a"]', '[7, "c"]', '[null, "after c"]']


def test_errbacks() -> None:
    result = fail.apply_async(("boom",), link=note.s("never"), link_error=note_id.s("told"))
    work()
    assert notes() == [json.dumps([result.id, "told"])]
    told = TaskResult.objects.get(task=note_id.name)
    assert told.state == State.SUCCESS


@pytest.mark.parametrize("atomic", [False, True])
def test_errbacks_that_take_the_error(atomic: bool) -> None:
    errback = (note_error_whole if atomic else note_error).s("told")
    secret = fail_secretly.apply_async(("hush", "boom"), link_error=errback)
    work()
    assert json.loads(notes()[0]) == [secret.id, ["…", "boom"], "ValueError('boom')", True, "told"]
    assert TaskResult.objects.get(task=errback.task).parent_id == secret.id
    with pytest.raises(TypeError, match=r"request, exception and traceback"):
        fail.apply_async(("boom",), link_error=note_error.s())
    fail.apply_async(("boom",), link_error=note.si("its own alone"))
    work()
    assert notes()[1:] == ['["its own alone"]']


def test_an_errback_of_a_call_that_is_nearly_too_large(settings: Settings) -> None:
    """With the arguments beside the error, its own message would be too large to be sent."""
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 40_000}
    large = fail_at_length.apply_async(("x" * 28_000,), link_error=note_error.s("told"))
    work()
    assert json.loads(notes()[0])[:2] == [large.id, []]


def test_when_one_fails_the_rest_ends_as_it_did() -> None:
    last = (add.s(1, 2) | fail.si("boom") | trace.si("never") | trace.si("never")).delay()
    work()
    assert states(last) == [State.SUCCESS, State.FAILURE, State.FAILURE, State.FAILURE]
    assert notes() == []
    with pytest.raises(ValueError, match="boom"):
        last.get(timeout=0)
    row = TaskResult.objects.get(id=last.id)
    assert row.error.startswith("tests.tasks.fail[")
    assert row.task == trace.name


def test_mended_and_tried_again_it_goes_on() -> None:
    last = (add.s(1, 2) | fails_until_mended.s() | add.s(10)).delay()
    work()
    assert states(last) == [State.SUCCESS, State.FAILURE, State.FAILURE]
    Run.objects.create(label="mended")
    assert last.parent is not None
    assert control.retry(last.parent.id)
    assert states(last) == [State.SUCCESS, State.PENDING, State.PENDING]
    work()
    assert states(last) == [State.SUCCESS] * 3
    assert AsyncResult(last.id).get(timeout=0) == 14


def test_revoked_it_takes_the_rest_with_it() -> None:
    last = chain(trace.s("never"), trace.si("never")).apply_async(expires=-1)
    work()
    assert states(last) == [State.REVOKED] * 2
    with pytest.raises(TaskRevoked):
        last.get(timeout=0)


def test_what_follows_is_in_the_ledger_before_it_is_on_the_broker(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """Killed in between, the relay sends it."""
    last = (add.s(1, 2) | add.s(3)).delay()
    with monkeypatch.context() as patch:
        patch.setattr(publish, "publish_committed", lambda pending, alias: None)
        work()
    assert states(last) == [State.SUCCESS, State.PENDING]
    assert on_redis() == (0, 0)
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0.0}
    assert publish.relay() == 1
    work()
    assert last.get(timeout=0) == 6


def test_a_task_that_is_run_twice_is_followed_once() -> None:
    """One that ignores its result leaves no row by which it could be known."""
    quiet.apply_async(("x",), link=note.s())
    (raw,) = broker.get().scan("default")
    work()
    put(raw)
    work()
    assert sorted(notes()) == ['["x"]', "quiet", "quiet"]


def test_two_deliveries_in_one_batch_are_followed_once() -> None:
    last = (echo.s("x") | note.s()).delay()
    (raw,) = broker.get().scan("default")
    put(raw)
    work()
    assert states(last) == [State.SUCCESS] * 2
    assert notes() == ['["x"]']


def test_a_result_that_cannot_be_sent_on_is_the_failure_of_its_task() -> None:
    with transaction.atomic():
        result = returns_a_set.apply_async(link=note.s())
    work()
    assert TaskResult.objects.get(id=result.id).state == State.FAILURE
    assert notes() == []


@task(ignore_result=True)
def returns_a_set() -> set[int]:
    return {1}


def test_an_atomic_task_and_what_follows_it_are_one() -> None:
    good = (atomic_add.s(1, 2) | add.s(3)).delay()
    bad = (atomic_add.s(-1, 2) | add.s(3)).delay()
    work()
    assert good.get(timeout=0) == 6
    assert states(bad) == [State.FAILURE] * 2


def test_a_chain_of_celery(settings: Settings) -> None:
    """As its clients send them; see the wire format."""
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}, "low": {}, "high": {}}}
    embed = {
        "callbacks": None,
        "errbacks": None,
        "chord": None,
        "chain": [
            {"task": add.name, "args": [n], "kwargs": {}, "options": {"task_id": f"c{n}"}}
            for n in (4, 3)
        ],
    }
    put(
        json.dumps(
            {
                "body": json.dumps([[1, 2], {}, embed]),
                "content-encoding": "utf-8",
                "content-type": "application/json",
                "headers": {"task": add.name, "id": "c2"},
                "properties": {"body_encoding": "utf-8"},
            }
        ).encode()
    )
    work()
    assert [AsyncResult(f"c{n}").get(timeout=0) for n in (2, 3, 4)] == [3, 6, 10]
