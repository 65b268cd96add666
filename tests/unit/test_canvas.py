"""Calls and chains as values, and the mistakes that are told at the call."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from jobs import Signature, chain, chord, group, signature, task
from jobs.canvas import Chain, Chord, Group
from jobs.exceptions import UnknownTask, WorkflowError


@task(name="tests.canvas.add")
def add(a: int, b: int) -> int:
    return a + b


def test_a_call_as_a_value() -> None:
    call = add.s(1, b=2).set(queue="low", countdown=3)
    assert call == Signature("tests.canvas.add", (1,), {"b": 2}, {"queue": "low", "countdown": 3})
    assert not call.immutable
    assert add.si(1, 2).immutable
    assert add.s(2)(1) == 3
    assert call.clone((7,), {"b": 3}).args == (7, 1)


def test_the_json_form_is_celery_s_and_comes_back() -> None:
    due = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    call = add.s(1).set(eta=due, expires=dt.timedelta(minutes=1), link=add.s(5))
    form = call.as_dict()
    assert form == {
        "task": "tests.canvas.add",
        "args": [1],
        "kwargs": {},
        "options": {
            "eta": "2030-01-01T00:00:00+00:00",
            "expires": 60.0,
            "link": add.s(5).as_dict(),
        },
        "subtask_type": None,
        "immutable": False,
    }
    assert signature(form).as_dict() == form
    assert signature("tests.canvas.add", (1, 2), queue="low") == add.s(1, 2).set(queue="low")


def test_a_frozen_call_keeps_its_id() -> None:
    frozen = add.s(1, 2).freeze()
    assert frozen.options["task_id"]
    assert frozen.freeze() == frozen
    assert frozen.freeze("mine").options["task_id"] == "mine"


def test_chains_are_flat() -> None:
    a, b, c = add.s(1, 2), add.s(3), add.s(4)
    assert (a | b | c) == chain(a, b, c) == chain(a, chain(b, c)) == Chain((a, b, c))
    with pytest.raises(ValueError, match="a chain needs a call"):
        chain()


def test_the_message_of_a_chain_has_the_next_call_last() -> None:
    rest = [add.s(4).as_dict(), add.s(3).as_dict()]
    sent = add.message((1, 2), {}, chain=rest, link=add.s(9), link_error=[add.s(8)])
    assert sent.embed == {
        "callbacks": [add.s(9).as_dict()],
        "errbacks": [add.s(8).as_dict()],
        "chain": rest,
        "chord": None,
    }
    assert add.message((1, 2), {}).embed == {}


def test_mistakes_are_told_at_the_call() -> None:
    with pytest.raises(UnknownTask, match=r"No task 'tests\.canvas\.ad'.*'tests\.canvas\.add'"):
        (add.s(1, 2) | signature("tests.canvas.ad")).delay()
    with pytest.raises(UnknownTask):
        signature("nowhere").delay()
    with pytest.raises(TypeError, match="too many positional arguments"):
        (add.s(1, 2) | add.s(3, 4)).delay()
    with pytest.raises(TypeError, match="missing"):
        (add.s(1, 2) | add.si(3)).delay()
    with pytest.raises(TypeError, match="is no call"):
        add.message((1, 2), {}, link=add)


def test_what_follows_a_group_makes_a_chord() -> None:
    a, b, c = add.s(1, 2), add.s(3), add.s(4)
    assert (group(a, b) | c) == chord([a, b], c) == Chord(Group((a, b)), c)
    assert (group(a, b) | c | b) == chord([a, b], c | b)
    assert (a | group(b, c)) == Chain((a, group(b, c)))
    assert (a | group(b, c) | a) == Chain((a, chord([b, c], a)))
    assert chain(group(a, b), c) == chord([a, b], c)
    assert chord([a, b]).body is None


def test_groups_of_what() -> None:
    a, b = add.s(1, 2), add.s(3)
    assert group(a, b) == group([a, b]) == group(one for one in (a, b))
    assert len(group(a, b)) == 2
    assert list(group(a, b)) == [a, b]
    with pytest.raises(TypeError, match="is no call"):
        group(add, add)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        add.s(1) | add.s(2),
        group(add.s(1), add.si(2, 3)).set(queue="low"),
        chord([add.s(1), add.s(2) | add.s(3)], add.s(4) | add.s(5)),
        add.s(1) | group(add.s(2), chord([add.s(3)], add.s(4)) | add.s(5)) | add.s(6),
    ],
)
def test_json_forms_come_back(call: Any) -> None:
    form = json.loads(json.dumps(call.as_dict()))
    assert signature(form) == call
    assert signature(form).as_dict() == form
    frozen = call.freeze()
    assert signature(frozen).freeze() == frozen


def test_the_json_form_of_a_chord() -> None:
    form = chord([add.s(1)], add.s(2)).as_dict()
    assert (form["task"], form["subtask_type"]) == ("celery.chord", "chord")
    assert form["kwargs"]["header"]["kwargs"]["tasks"] == [add.s(1).as_dict()]
    assert form["kwargs"]["body"] == add.s(2).as_dict()


def test_the_same_with_other_arguments_and_options() -> None:
    a, b = add.s(1), add.s(2)
    assert (a | b).clone((5,)) == (add.s(5, 1) | b)
    assert group(a, b).clone((5,)) == group(add.s(5, 1), add.s(5, 2))
    assert chord([a], b).clone((5,)) == chord([add.s(5, 1)], b)
    assert chord([a], b).set(queue="low").options == {"queue": "low"}


def test_a_task_for_many_items() -> None:
    assert add.starmap([(1, 2)]).as_dict() == {
        "task": "celery.starmap",
        "args": [],
        "kwargs": {"task": add.s().as_dict(), "it": [(1, 2)]},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    assert add.starmap([(1, 2), (3, 4)])() == [3, 7]
    assert len(add.chunks([(n, n) for n in range(10)], 4)) == 3

    @task(name="tests.canvas.waits")
    async def waits() -> None: ...

    with pytest.raises(TypeError, match="'async def'"):
        waits.map([1])


def test_what_contains_itself() -> None:
    call = add.s(1, 2)
    call.options["link"] = call  # type: ignore[index]
    with pytest.raises(WorkflowError, match="contains itself"):
        group(call).delay()
    form: Any = group(add.s(1, 2)).as_dict()
    form["kwargs"]["tasks"].append(form)
    with pytest.raises(WorkflowError, match="contains itself"):
        signature(form)


def test_callbacks_are_checked_too() -> None:
    with pytest.raises(UnknownTask):
        add.message((1, 2), {}, link=signature("tests.nowhere"))
    with pytest.raises(TypeError, match="the id of the call that failed"):
        add.message((1, 2), {}, link_error=add.s(1, 2))
    with pytest.raises(TypeError, match="the result of the call before it"):
        add.message((1, 2), {}, link=group(add.s(1, 2)))
    with pytest.raises(WorkflowError, match="no one end"):
        group(add.s(1, 2)).apply_async(link=add.s(3))
