"""Compositions as plain dicts: what is sent now, and what travels along."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from jobs.message import workflow


def ids() -> Callable[[], str]:
    return (f"id{n}" for n in itertools.count()).__next__


def call(name: str, *args: Any, **options: Any) -> dict[str, Any]:
    return workflow.task(name, args, {}, options)


def started(form: workflow.Call, *before: Any) -> workflow.Start:
    return workflow.start(workflow.freeze(form, ids()), before)


def names(calls: Any) -> list[str]:
    return [one["task"] for one in calls]


def test_freezing_twice_changes_nothing() -> None:
    form = workflow.chain([call("a"), workflow.group([call("b"), call("c")]), call("d")])
    frozen = workflow.freeze(form, ids())
    assert workflow.freeze(frozen, ids()) == frozen
    assert all(workflow.options(one).get("task_id") for one in workflow.tasks(frozen))
    assert workflow.options(call("a")) == {}  # what is given is not changed


def test_a_chain_has_the_next_call_last() -> None:
    start = started(workflow.chain([call("a", 1), call("b"), call("c")]), 0)
    (first,) = start.calls
    assert (first["task"], first["args"]) == ("a", [0, 1])
    assert names(first["options"]["chain"]) == ["c", "b"]
    assert start.chords == []


def test_chains_in_chains_are_one() -> None:
    form = workflow.chain([workflow.chain([call("a"), call("b")]), workflow.chain([call("c")])])
    assert names(workflow.parts(workflow.freeze(form, ids()))) == ["a", "b", "c"]
    assert workflow.freeze(workflow.chain([call("a")]), ids())["task"] == "a"


def test_what_follows_a_group_makes_a_chord() -> None:
    members = workflow.group([call("b"), call("c")])
    form = workflow.chain([call("a"), members, call("d"), call("e")])
    a, made = workflow.parts(workflow.freeze(form, ids()))
    assert (a["task"], workflow.kind(made)) == ("a", "chord")
    assert names(workflow.parts(workflow.header(made))) == ["b", "c"]
    assert names(workflow.parts(workflow.body(made))) == ["d", "e"]


def test_what_follows_a_chord_follows_its_body() -> None:
    first = workflow.chord(workflow.group([call("a")]), call("b"))
    start = started(workflow.chain([first, call("c")]))
    assert names(workflow.tasks(start.chords[0].body)) == ["b", "c"]


def test_members_carry_their_place_and_the_body() -> None:
    form = workflow.chord(workflow.group([call("a"), call("b") | {"immutable": True}]), call("c"))
    start = started(form, 7)
    (chord,) = start.chords
    assert chord.size == 2
    assert [one["args"] for one in start.calls] == [[7], []]
    for n, one in enumerate(start.calls):
        assert one["options"]["group_id"] == chord.id
        assert one["options"]["group_index"] == n
        assert one["options"]["chord"] == chord.body


def test_the_last_of_a_chain_is_the_member() -> None:
    inner = workflow.chord(workflow.group([call("b")]), call("c"))
    form = workflow.chord(workflow.group([workflow.chain([call("a"), inner])]), call("d"))
    start = started(form)
    (first,) = start.calls
    assert "group_id" not in first["options"]
    (then,) = first["options"]["chain"]
    assert workflow.options(workflow.body(then))["group_id"] == start.chords[0].id
    assert workflow.last(then)["task"] == "c"


def test_groups_in_groups_are_one() -> None:
    form = workflow.group([workflow.group([call("a"), call("b")]), call("c")])
    start = started(form)
    assert names(start.calls) == ["a", "b", "c"]
    assert [one["options"]["group_index"] for one in start.calls] == [0, 1, 2]


def test_a_member_that_ends_in_a_group_is_given_one_end() -> None:
    many = workflow.chain([call("a"), workflow.group([call("b"), call("c")])])
    start = started(workflow.group([many]))
    (then,) = start.calls[0]["options"]["chain"]
    assert workflow.body(then)["task"] == workflow.ACCUMULATE
    assert workflow.body(then)["kwargs"] == {"index": 0}


def test_an_empty_header_starts_the_body() -> None:
    start = started(workflow.chord(workflow.group([]), call("c", 1)))
    assert [one["args"] for one in start.calls] == [[[], 1]]
    assert start.chords == []


def test_options_of_a_chain() -> None:
    form = workflow.chain([call("a"), call("b", link=call("x"))])
    given = {"queue": "low", "link": call("y"), "link_error": call("z"), "task_id": "end"}
    a, b = workflow.parts(workflow.freeze(workflow.spread(form, given), ids()))
    assert a["options"] == {"link_error": [call("z")], "queue": "low", "task_id": "id0"}
    assert b["options"]["task_id"] == "end"
    assert names(b["options"]["link"]) == ["x", "y"]


def test_options_of_a_chord() -> None:
    form = workflow.chord(workflow.group([call("a")]), call("b"))
    given = {"queue": "low", "countdown": 3, "link": call("y"), "task_id": "end"}
    start = workflow.start(workflow.freeze(workflow.spread(form, given), ids()))
    header, body = start.calls[0]["options"], workflow.options(start.chords[0].body)
    assert (header["queue"], header["countdown"]) == ("low", 3)
    assert body == {"queue": "low", "link": [call("y")], "task_id": "end"}


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (workflow.chain([]), "a chain needs a call"),
        (workflow.group([call("a")], {"link": call("b")}), r"write group \| call"),
        ({"task": "celery.chord", "subtask_type": "chord", "kwargs": {}}, "no body"),
        ({"task": 3}, "is no call"),
        ({"task": "x", "subtask_type": "quartet"}, "is no call"),
    ],
)
def test_what_cannot_be(form: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        workflow.freeze(form, ids())


def test_the_forms_of_celery() -> None:
    """Headers may be lists; parts of signatures may be missing."""
    form = {
        "task": "celery.chord",
        "subtask_type": "chord",
        "kwargs": {"header": [{"task": "a"}], "body": {"task": "b"}},
    }
    start = started(form, 1)
    assert (start.calls[0]["task"], start.calls[0]["args"]) == ("a", [1])
    assert workflow.kind({"task": "celery.map", "subtask_type": "xmap"}) == "task"


def test_what_follows_a_group_in_its_options_is_found() -> None:
    """Celery's clients write so of a chord's body that is a group."""
    form = workflow.group([call("a"), call("b")], {"task_id": "g", "chain": [call("d"), call("c")]})
    assert names(workflow.tasks_in_place(form)) == ["a", "b", "c", "d"]


def test_whose_errbacks_are_told_of_what_could_not_be_sent() -> None:
    header = workflow.group([call("x"), call("y")])
    chord = workflow.chord(header, workflow.chord(header, call("a")))
    form = workflow.group([chord, workflow.chain([call("b"), call("z")]), call("c")])
    assert names(workflow.that_fail(workflow.freeze(form, ids()))) == ["a", "b", "c"]
