"""Calls and chains as values, and the mistakes that are told at the call."""

from __future__ import annotations

import datetime as dt

import pytest

from jobs import Signature, chain, signature, task
from jobs.canvas import Chain
from jobs.exceptions import UnknownTask


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
