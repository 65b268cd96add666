"""What follows a call and can't be sent: it ends, and so does whatever waits for it."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import (
    AsyncResult,
    chain,
    chord,
    group,
    message,
)
from jobs.exceptions import ChordError, JobsError, TaskFailed
from jobs.message import workflow
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.record import following
from tests.tasks import add, echo, fail
from tests.workers import dead_letters, on_redis, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

#: Options, and whole calls, that are none.
NO_CALLS: dict[str, dict[str, Any]] = {
    "eta": {"options": {"eta": "never"}},
    "eta that is a number": {"options": {"countdown": "soon"}},
    "countdown": {"options": {"countdown": 1e300}},
    "arguments": {"args": 7},
    "named arguments": {"kwargs": 7},
    "kind": {"subtask_type": "x"},
    "no name": {"task": None},
    "headers": {"options": {"headers": 7}},
}


def call(task_id: str, **fields: Any) -> dict[str, Any]:
    options = {"task_id": task_id, **fields.pop("options", {})}
    return {**workflow.task(add.name, [1], options=options), **fields}


@pytest.mark.parametrize("fields", [pytest.param(v, id=k) for k, v in NO_CALLS.items()])
def test_the_rest_of_a_chain_ends(fields: dict[str, Any]) -> None:
    bad, behind, last = (message.new_id() for _ in range(3))
    rest = [call(last), call(behind), call(bad, **fields)]
    sent = put_message(task=add.name, args=[1, 1], embed={"chain": rest})
    work()
    rows = {row.id: row for row in TaskResult.objects.all()}
    assert rows[sent].state == State.SUCCESS
    expected = {behind, last} if {"subtask_type", "task"} & fields.keys() else {bad, behind, last}
    assert rows.keys() == {sent, *expected}
    for one in expected:
        assert rows[one].state == State.FAILURE
        assert rows[one].error.startswith(f"It can't be sent after {add.name}[{sent}]: ")
        assert rows[one].parent_id == sent
        with pytest.raises((JobsError, TaskFailed), match="can't be sent after"):
            AsyncResult(one).get(timeout=0)
    assert (on_redis(), dead_letters()) == ((0, 0), [])


@pytest.mark.parametrize("what", ["callbacks", "errbacks"])
def test_a_callback_and_an_errback_end(what: str) -> None:
    bad = message.new_id()
    first = add if what == "callbacks" else fail
    calls = [call(bad, options={"eta": "never"}), call("good", immutable=True, args=[1, 1])]
    args = [1, 1] if what == "callbacks" else ["no"]
    put_message(task=first.name, args=args, embed={what: calls})
    work()
    assert TaskResult.objects.get(id=bad).state == State.FAILURE
    assert TaskResult.objects.get(id="good").state == State.SUCCESS


@pytest.fixture
def _echo_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = following._check

    def check(one: Any) -> None:
        real(one)
        if one["task"] == echo.name:
            raise ValueError("no")

    monkeypatch.setattr(following, "_check", check)


@pytest.mark.usefixtures("_echo_cannot_be_sent")
def test_a_chord_whose_member_cannot_be_sent_ends() -> None:
    result = chord([chain(add.s(1, 1), echo.s()), add.s(2, 2)], add.si(3, 3)).delay()
    work()
    assert result.state == State.FAILURE
    with pytest.raises(ChordError, match="can't be sent after"):
        result.get(timeout=0)


@pytest.mark.usefixtures("_echo_cannot_be_sent")
def test_a_group_that_cannot_be_sent_ends() -> None:
    result = chain(add.s(1, 1), group(echo.s(), add.s(1))).delay()
    work()
    assert (result.ready(), result.failed()) == (True, True)
    assert {one.state for one in result} == {State.FAILURE}
