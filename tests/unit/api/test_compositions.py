"""Calls and chains as values, and the mistakes that are told at the call."""

from __future__ import annotations

import datetime as dt
import functools
import json
import operator
from typing import Any

import pytest

from jobs import (
    Signature,
    StampingVisitor,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    serialization,
    signature,
    subtask,
    task,
    xmap,
    xstarmap,
)
from jobs.api import sending
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
    call = add.s(1, 2)
    result = call.freeze()
    assert result.id == call.id == call.options["task_id"]
    assert call.freeze() == result
    assert call.freeze("mine").id == call.id == "mine"


@pytest.mark.parametrize(
    "call",
    [
        chain(add.s(1)),
        add.s(1) | add.s(2),
        group(add.s(1), add.s(2)),
        chord([add.s(1)], add.s(2) | add.s(3)),
    ],
)
def test_a_frozen_composition_keeps_its_ids(call: Any) -> None:
    kind = type(call)
    result, form = call.freeze(), call.as_dict()
    assert call.freeze().as_tuple() == result.as_tuple()
    assert (type(call), call.as_dict()) == (kind, form)
    assert result.id in json.dumps(call)


def test_chains_are_flat() -> None:
    a, b, c = add.s(1, 2), add.s(3), add.s(4)
    assert (a | b | c) == chain(a, b, c) == chain(a, chain(b, c)) == chain([a, b, c])
    assert (a | b | c).tasks == [a, b, c]
    assert functools.reduce(operator.or_, [a, b], chain()) == (a | b)
    with pytest.raises(ValueError, match="a chain needs a call"):
        chain().delay()


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


def _within(kind: str, parts: Any) -> dict[str, Any]:
    return {"task": f"celery.{kind}", "kwargs": parts, "subtask_type": kind}


def _nested(times: int) -> dict[str, Any]:
    form = add.s(1, 2).as_dict()
    for _ in range(times):
        form = _within("chain", {"tasks": [form]})
    return form


@pytest.mark.parametrize(
    "form",
    [
        {"task": "a", "args": 5},
        {"task": "a", "args": "five"},
        {"task": "a", "kwargs": [1]},
        {"task": "a", "options": ["queue"]},
        {"task": "a", "subtask_type": {}},
        {"task": "a", "options": {"chain": "b"}},
        _within("chain", [1]),
        _within("group", {"tasks": 7}),
        _within("chord", -1),
        _within("chord", {"header": 1, "body": {"task": "a"}}),
        _within("chord", {"header": {"options": 3}, "body": {"task": "a"}}),
        _nested(5000),
    ],
)
def test_what_only_looks_like_a_json_form(form: dict[str, Any]) -> None:
    with pytest.raises(WorkflowError, match=r"no JSON form of a call: its '|nested too deeply"):
        signature(form)
    assert signature(_nested(20)).delay  # which somebody may well write


def test_what_follows_a_group_makes_a_chord() -> None:
    a, b, c = add.s(1, 2), add.s(3), add.s(4)
    assert (group(a, b) | c) == chord([a, b], c) == chord(group(a, b), c)
    assert (group(a, b) | c | b) == chord([a, b], c | b)
    assert (a | group(b, c)).tasks == [a, group(b, c)]
    assert (a | group(b, c) | a).tasks == [a, chord([b, c], a)]
    assert chain(group(a, b), c) == chord([a, b], c)
    assert chord([a, b]).body is None


def test_groups_of_what() -> None:
    a, b = add.s(1, 2), add.s(3)
    assert group(a, b) == group([a, b]) == group(one for one in (a, b))
    assert len(group(a, b)) == 2
    assert list(group(a, b)) == [a, b]
    with pytest.raises(TypeError, match="is no call"):
        group(add, add)


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
    assert signature(form) is not call
    assert type(signature(form)) is type(call)


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
    for call in (a, a | b, chord([a], b)):
        call.on_error(add.s(3)).clone().stamp(of="the copy")
        assert call.options["link_error"] == [add.s(3)]
    assert chord([a], b).set(queue="low").options == {"queue": "low"}


def test_a_task_for_many_items() -> None:
    assert add.starmap([(1, 2)]).as_dict() == {
        "task": "celery.starmap",
        "args": [],
        "kwargs": {"task": add.s().as_dict(), "it": [(1, 2)]},
        "options": {},
        "subtask_type": None,
        "immutable": True,
    }
    assert add.starmap([(1, 2), (3, 4)])() == [3, 7]
    assert len(add.chunks([(n, n) for n in range(10)], 4)) == 3

    @task(name="tests.canvas.waits")
    async def waits() -> None: ...

    with pytest.raises(TypeError, match="'async def'"):
        waits.map([1])


def test_what_contains_itself() -> None:
    call = add.s(1, 2)
    call.options["link"] = call
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


@task(name="tests.canvas.pay", sensitive=["card"])
def pay(order: int, card: str = "", *, note: str = "") -> str:
    return card


SECRET = "4111-1111"


@pytest.mark.parametrize(
    "call",
    [
        pay.s(1, SECRET),
        pay.s(1, card=SECRET),
        pay.s(SECRET),  # behind another call it is the second argument
        pay.si(1, SECRET),
        pay.si(1, card=SECRET).set(queue="low"),
        pay.s(1, SECRET) | add.s(1),
        add.s(1, 2) | pay.s(SECRET) | add.s(1),
        group(pay.s(1, SECRET), pay.s(2, SECRET)),
        chord([pay.s(1, SECRET)], add.s(1)),
        chord([add.s(1, 2)], pay.s(card=SECRET)),
        chain(group(pay.s(1, SECRET), add.s(1, 2)), pay.s(SECRET)),
        add.s(1).set(link=pay.s(1, SECRET), link_error=[pay.s(1, SECRET)]),
        pay.map([SECRET]),
        pay.starmap([(1, SECRET)]),
        pay.chunks([(1, SECRET)], 1),
        signature(pay.s(1, SECRET).as_dict()),
    ],
)
def test_sensitive_values_are_not_shown(call: Any) -> None:
    for shown in (repr(call), str(call), f"{call}", f"{[call]!r}", f"{call!r:>10}"):
        assert SECRET not in shown
        assert "…" in shown or "add" in shown
    assert SECRET in json.dumps(dict(call))


def test_a_call_is_shown_as_it_is_written() -> None:
    assert repr(add.s(1, b="x")) == "tests.canvas.add(1, b='x')"
    assert repr(add.s(1, 2) | add.s(3)) == "tests.canvas.add(1, 2) | tests.canvas.add(3)"
    assert repr(group(add.s(1))) == "group([tests.canvas.add(1)])"
    assert repr(chord([add.s(1)], add.s())) == "chord([tests.canvas.add(1)], tests.canvas.add())"
    assert repr(pay.si(1, "x", note="y")) == "tests.canvas.pay(1, …, note='y')"
    assert repr(pay.s(1, "x")) == "tests.canvas.pay(1, …)"
    assert repr(pay.s(1)) == "tests.canvas.pay(…)"  # it may become the second
    assert len(repr(add.s("x" * 10_000))) < 200
    assert repr(signature("nowhere", (1,))) == "nowhere(1)"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: chain(add.s(1), {"card": SECRET}),
        lambda: group({"args": [SECRET]}),
        lambda: signature({"task": "x", "args": [SECRET], "subtask_type": "y"}),
        lambda: add.s(1, 2).set(link={"args": [SECRET]}).delay(),
        lambda: add.message((1, 2), {}, link={"args": [SECRET]}),
        lambda: chord([add.s(1)], {"args": [SECRET]}),
        lambda: (add.s(1) | pay.s(1, SECRET, SECRET)).delay(),
    ],
)
def test_mistaken_calls_do_not_show_their_values(wrong: Any) -> None:
    with pytest.raises((TypeError, WorkflowError)) as caught:
        wrong()
    assert SECRET not in str(caught.value)


def test_an_immutable_call_keeps_its_arguments() -> None:
    call = add.si(1, 2)
    assert call.clone((9,), {"b": 9}) == call
    assert call(9, b=9) == 3
    assert (add.si(1, 2) | add.s(3)).clone((9,)).tasks[0] == call
    assert group(call, add.s(1)).clone((9,)).tasks == [call, add.s(9, 1)]
    assert chord([call], add.s(1)).clone((9,)).header.tasks == [call]
    assert add.signature((1, 2), immutable=True) == call
    assert signature("tests.canvas.add", (1, 2), immutable=True) == call
    assert add.s(1, 2).set(immutable=True) == call
    assert call.clone().set(immutable=False) == add.s(1, 2)
    assert call.clone(queue="low").clone((9,)).args == (1, 2)
    assert call.clone(queue="low").options == {"queue": "low"}
    assert group(add.s(1), add.s(2)).set(immutable=True).clone((9,)).tasks == [add.si(1), add.si(2)]
    assert (add.s(1) | add.s(2)).set(immutable=True).clone((9,)).tasks == [add.si(1), add.s(2)]
    assert chord([add.s(1)], add.s()).set(immutable=True).clone((9,)).header.tasks == [add.si(1)]


def test_forms_of_celery() -> None:
    assert add.signature((2, 2), countdown=10) == add.s(2, 2).set(countdown=10)
    assert add.subtask((2,), {"b": 3}) == add.s(2, b=3)
    assert signature("tests.canvas.add", args=(2, 2), options={"queue": "low"}) == add.s(2, 2).set(
        queue="low"
    )
    made = group(add.s(n) for n in range(3)).skew(start=1, stop=2.5)
    assert [call.options["countdown"] for call in made.tasks] == [1, 2, 2.5]
    assert len(add.chunks([(1, 2)] * 5, 2).group()) == 3
    assert serialization.loads(serialization.dumps([add.s(1)])) == [add.s(1).as_dict()]


A, B, C = add.s(2), add.si(3, 4), add.s(5) | add.s(6)


@pytest.mark.parametrize(
    "several",
    [
        [A, B, C],
        (A, B, C),
        [A.as_dict(), B, C.as_dict()],
        (*group(A, B).tasks, C),
        lambda: (call for call in (A, B, C)),
        lambda: {id(call): call for call in (A, B, C)}.values(),
        lambda: map(signature, [A.as_dict(), B.as_dict(), C.as_dict()]),
    ],
)
@pytest.mark.parametrize("name", ["link", "link_error"])
def test_one_call_or_several(several: Any, name: str) -> None:
    def calls() -> Any:
        return several() if callable(several) else several

    embedded = {"link": "callbacks", "link_error": "errbacks"}[name]
    expected = [A.as_dict(), B.as_dict(), C.as_dict()]
    assert add.message((1, 2), {}, **{name: calls()}).embed[embedded] == expected
    for made in (add.s(1, 2).set(**{name: calls()}), add.signature((1, 2), **{name: calls()})):
        assert made.as_dict()["options"][name] == expected
        assert made.as_dict()["options"][name] == expected  # a second time, too
        assert signature(made.as_dict()).as_dict() == made.as_dict()
    for one in (add.s(1, 2), add.s(1, 2) | add.s(3), chord([add.s(1, 2)], add.s(1))):
        linked = calls()
        assert getattr(one, name)(linked) is linked
        assert one.as_dict()["options"][name] == expected


@pytest.mark.parametrize("one", [A, C, group(A, B), chord([A], B), A.as_dict(), C.as_dict()])
def test_one_call(one: Any) -> None:
    form = signature(one).as_dict()
    sent = add.message((1, 2), {}, link=one, link_error=one)
    assert (sent.embed["callbacks"], sent.embed["errbacks"]) == ([form], [form])
    assert add.s(1, 2).set(link=one).as_dict()["options"]["link"] == form


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_no_call(nothing: Any) -> None:
    assert add.message((1, 2), {}, link=nothing, link_error=nothing).embed == {}


@pytest.mark.parametrize("wrong", [add, "tests.canvas.add", 5, [add], {"x": 1}, [A, None]])
def test_what_is_no_callback(wrong: Any) -> None:
    with pytest.raises(TypeError, match="is no call"):
        add.message((1, 2), {}, link=wrong)
    with pytest.raises(TypeError, match="is no call"):
        add.s(1).link(wrong)


def test_links_are_added_to_the_call_itself() -> None:
    call = add.s(1, 2)
    other = call.clone(queue="low")
    assert call.link(A) is A
    assert call.link([A, B]) == [A, B]
    assert call.link_error(C) is C
    assert call.on_error(C) is call
    assert call.options == {"link": [A, B], "link_error": [C]}
    assert other.options == {"queue": "low"}
    with pytest.raises(WorkflowError, match=r"group \| call"):
        group(A, B).link(C)
    several = group(A, B)
    several.link_error(C)
    assert several.options == {"link_error": [C]}


def test_a_call_is_a_dict() -> None:
    call = add.s(1, b=2).set(queue="low")
    assert isinstance(call, dict)
    assert (call["task"], call["args"], call["kwargs"]) == ("tests.canvas.add", (1,), {"b": 2})
    assert json.loads(json.dumps(call)) == call.as_dict()
    assert Signature.from_dict(json.loads(json.dumps(call))) == call
    call["args"] = (5,)
    call.kwargs = {"b": 6}
    call.options["priority"] = 3
    assert call == add.s(5, b=6).set(queue="low", priority=3)
    assert call() == 11
    call.options = {}
    assert call == add.s(5, b=6)
    assert (call.name, call.type, call.id) == ("tests.canvas.add", add, None)


def test_what_is_of_which_kind() -> None:
    one, several = add.s(1), [add.s(1), add.s(2)]
    for call, kind in (
        (one | one, chain),
        (chain(several), chain),
        (group(several), group),
        (group(several) | one, chord),
        (chord(several, one), chord),
    ):
        assert isinstance(call, kind)
        assert isinstance(call, Signature)
        assert isinstance(signature(json.loads(json.dumps(call))), kind)
    assert not isinstance(one, chain | group | chord)


def test_parts_can_be_read_and_assigned() -> None:
    a, b, c = add.s(1), add.s(2), add.s(3)
    whole = chord([a, b], c)
    assert (whole.tasks, whole.body) == ([a, b], c)
    whole.tasks, whole.body = [c], a.as_dict()
    assert whole == chord([c], a)
    several = group(a, b)
    assert (several.tasks[0], several[1], len(several)) == (a, b, 2)
    several.tasks.append(c)
    assert several == group(a, b, c)
    steps = a | b
    steps.tasks = [c.as_dict()]
    assert steps == chain(c)


def test_copies_share_nothing() -> None:
    a, b = add.s(1), add.s(2)
    for call in (a, a | b, group(a, b), chord([a], b)):
        copy = call.clone()
        assert copy == call
        assert type(copy) is type(call)
        copy.set(queue="low")
        for part in copy.tasks if isinstance(copy, chain | group | chord) else [copy]:
            part.set(priority=1)
        assert call.options == a.options == b.options == {}


def test_replacing_what_a_call_has() -> None:
    call = add.s(1, b=2).set(queue="low")
    assert call.replace(args=(5,)) == add.s(5, b=2).set(queue="low")
    assert call.replace(kwargs={}) == add.s(1).set(queue="low")
    assert call.replace(options={"priority": 1}) == add.s(1, b=2).set(priority=1)
    assert call == add.s(1, b=2).set(queue="low")


def test_joining_with_json_forms() -> None:
    a, b = add.s(1, 2), add.s(3)
    assert (a | b.as_dict()) == (a.as_dict() | b) == (a | b)
    call: Any = a
    call |= b
    assert call == (a | b)
    assert a == add.s(1, 2)
    with pytest.raises(TypeError):
        a | 5


def test_maybe_a_call() -> None:
    call = add.s(1)
    assert maybe_signature(None) is None
    assert maybe_signature(call) is call
    assert maybe_signature(call, clone=True) is not call
    assert maybe_signature(call.as_dict(), app=None) == call == subtask("tests.canvas.add", (1,))
    assert xmap(add.s(1), [2]) == xmap(add.s(1), iter([2]))
    assert xstarmap(add, [(1, 2)]) == add.starmap([(1, 2)])
    assert chunks(add.s(), [(1, 2)] * 5, 2) == add.chunks([(1, 2)] * 5, 2)


def test_calls_that_are_linked_are_listed() -> None:
    a, b, c = add.s(1), add.s(2), add.s(3)
    b.link(c)
    a.link(b)
    assert a.flatten_links() == [a, b, c]


class Visitor(StampingVisitor):
    def on_signature(self, sig: Signature, **headers: Any) -> Any:
        return {"mine": sig.args[0], "stamped_headers": ["mine"], "plain": 1}

    def on_callback(self, callback: Signature, **headers: Any) -> Any:
        return {"linked": True}


def stamps_of(call: Signature) -> Any:
    return add.message((1, 2), {}, **call.options).headers.get("stamps")


def test_stamps() -> None:
    a, b, c, d = add.s(1), add.s(2), add.s(3), add.s(4)
    c.link(d)
    call = chord([a, b | a], c)
    assert call.stamp(customer="x", tags=["y", "z"]) is call
    for one in (a, b, c, d):
        assert stamps_of(one) == {"customer": "x", "tags": ["y", "z"]}
    assert a.stamp(customer="w").options["customer"] == "x"  # which it has
    assert a.stamp(customer="w", append_stamps=True).options["customer"] == ["x", "w"]
    assert json.loads(json.dumps(call)) == call.as_dict()
    with pytest.raises(ValueError, match="an option of a call"):
        add.s(1).stamp(queue="x")


def test_stamps_of_a_visitor() -> None:
    a, b, c = add.s(1), add.s(2), add.s(3)
    b.link(c)
    (a | b).stamp(visitor=Visitor(), given="x")
    assert stamps_of(a) == {"mine": 1, "given": "x"}
    assert stamps_of(c) == {"mine": 3, "given": "x", "linked": True}
    assert add.message((1, 2), {}, **a.options).headers["plain"] == 1


def test_a_task_of_another_service() -> None:
    far = signature("other.service.task", (1, 2), {"any": 3}, queue="default")
    sent = sending.message_of((add.s(1, 2) | far).tasks[1].set(task_id="x").as_dict())
    assert (sent.task, sent.queue, sent.args) == ("other.service.task", "default", [1, 2])
    with pytest.raises(UnknownTask, match=r"queue=.*jobs\.send_task"):
        signature("other.service.task", (1, 2)).delay()
