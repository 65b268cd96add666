"""What of a call is sent now, and what travels along to be sent later."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jobs import message

Call = Mapping[str, Any]

#: Returns its arguments. It ends what is a member of a group and has a group for its own end.
ACCUMULATE = "celery.accumulate"

_KINDS = frozenset({"task", "chain", "group", "chord"})


def task(
    name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    kind: str | None = None,
    immutable: bool = False,
) -> dict[str, Any]:
    return {
        "task": name,
        "args": list(args),
        "kwargs": dict(kwargs or {}),
        "options": dict(options or {}),
        "subtask_type": kind,
        "immutable": immutable,
    }


def chain(calls: Iterable[Call], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return task("celery.chain", (), {"tasks": list(calls)}, options, kind="chain")


def group(calls: Iterable[Call], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return task("celery.group", (), {"tasks": list(calls)}, options, kind="group")


def chord(header: Call, body: Call, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    parts = {"header": header, "body": body, "kwargs": {}}
    return task("celery.chord", (), parts, options, kind="chord")


def kind(call: Call) -> str:
    """``task``, ``chain``, ``group`` or ``chord``. Raises `ValueError` for what is none."""
    found = call.get("subtask_type") or "task"
    if found in ("xmap", "xstarmap"):
        return "task"  # Celery's names for calls of its builtin tasks
    if found not in _KINDS or not isinstance(call.get("task"), str):
        raise ValueError(f"what calls itself {_name(call)!r}, of the kind {found!r}, is no call")
    return str(found)


def _name(call: Call) -> str:
    """What may be shown of it: its arguments may be secret."""
    return str(call.get("task"))[:100]


def options(call: Call) -> Mapping[str, Any]:
    return call.get("options") or {}


def parts(call: Call) -> list[Call]:
    """Of a chain or a group."""
    return list((call.get("kwargs") or {}).get("tasks") or ())


def header(call: Call) -> dict[str, Any]:
    """Of a chord: a group."""
    found = (call.get("kwargs") or {}).get("header") or []
    return dict(found) if isinstance(found, Mapping) else group(found)


def body(call: Call) -> Call:
    """Of a chord. Raises `ValueError` when it has none."""
    found = (call.get("kwargs") or {}).get("body")
    if not isinstance(found, Mapping):
        raise ValueError("a chord has no body; write chord(header, body)")
    return found


def with_options(call: Call, **changes: Any) -> dict[str, Any]:
    return {**call, "options": {**options(call), **changes}}


def listed(calls: Any) -> list[Any]:
    """What ``link`` and ``link_error`` are given: none, one or several."""
    if not calls:
        return []
    return list(calls) if isinstance(calls, list | tuple) else [calls]


def tasks(call: Call) -> Iterator[Call]:
    """Every task of a call, those that start first."""
    what = kind(call)
    if what == "task":
        yield call
        inner: Iterable[Call] = reversed(options(call).get("chain") or ())
    elif what == "chord":
        inner = (*parts(header(call)), body(call))
    else:
        inner = parts(call)
    for part in inner:
        yield from tasks(part)


def ends_in_group(call: Call) -> bool:
    what = kind(call)
    if what == "chain":
        last = parts(call)[-1:]
        return bool(last) and ends_in_group(last[0])
    return ends_in_group(body(call)) if what == "chord" else what == "group"


def last(call: Call) -> Call:
    """The task with which a call that has one end ends."""
    what = kind(call)
    if what == "chain":
        return last(parts(call)[-1])
    if what == "chord":
        return last(body(call))
    behind = options(call).get("chain")
    return last(behind[0]) if behind else call


def freeze(call: Call, new_id: Callable[[], str]) -> dict[str, Any]:
    """The same call in the form that is described above. One that has it already stays as it is,
    ids included.

    Raises `ValueError` for what can't be: ``link`` of a group, which has no one end.
    """
    return _FREEZE[kind(call)](call, new_id)


def _freeze_task(call: Call, new_id: Callable[[], str]) -> dict[str, Any]:
    if options(call).get("task_id"):
        return dict(call)
    return with_options(call, task_id=new_id())


def _freeze_chain(call: Call, new_id: Callable[[], str]) -> dict[str, Any]:
    steps = _steps(call)
    if not steps:
        raise ValueError("a chain needs a call at least")
    frozen = [freeze(step, new_id) for step in steps]
    return frozen[0] if len(frozen) == 1 else chain(frozen)


def _freeze_group(call: Call, new_id: Callable[[], str]) -> dict[str, Any]:
    members = [freeze(_with_one_end(member), new_id) for member in _flat(call)]
    return group(members, {"task_id": options(call).get("task_id") or new_id()})


def _freeze_chord(call: Call, new_id: Callable[[], str]) -> dict[str, Any]:
    call = over_chord(call)
    frozen = freeze(header(call), new_id)
    return chord(frozen, freeze(body(call), new_id))


def _steps(call: Call) -> list[Call]:
    """A chain's parts, one after the other: what follows a group makes a chord of it, what follows
    a chord goes with its body."""
    steps: list[Call] = []
    for part in parts(over_chain(call)):
        step = _unrolled(part)
        steps += _steps(step) if kind(step) == "chain" else [step]
    for n, step in enumerate(steps[:-1]):
        if kind(step) in ("group", "chord"):
            return [*steps[:n], _before(step, steps[n + 1 :])]
    return steps


def _unrolled(step: Call) -> Call:
    """A group of one call is that call in a chain, as in Celery; one with an id of its own, which
    somebody may wait for, stays a group."""
    while kind(step) == "group" and len(parts(step)) == 1 and not options(step).get("task_id"):
        (step,) = parts(over_group(step))
    return step


def _before(step: Call, rest: list[Call]) -> Call:
    """A group or a chord with what follows it."""
    if kind(step) == "group":
        return chord(step, chain(rest))
    step = over_chord(step)
    last = body(step)
    behind = _before(last, rest) if kind(last) in ("group", "chord") else chain([last, *rest])
    return chord(header(step), behind)


def _flat(call: Call) -> list[Call]:
    """A group's members; groups among them are taken apart."""
    found: list[Call] = []
    for member in parts(over_group(call)):
        found += _flat(member) if kind(member) == "group" else [member]
    return found


def _with_one_end(member: Call) -> Call:
    return chain([member, task(ACCUMULATE, (), {"index": 0})]) if ends_in_group(member) else member


_FREEZE: dict[str, Callable[[Call, Callable[[], str]], dict[str, Any]]] = {
    "task": _freeze_task,
    "chain": _freeze_chain,
    "group": _freeze_group,
    "chord": _freeze_chord,
}


#: Options of a chord that say when its header starts.
_STARTS = ("countdown", "eta")


def spread(call: Call, given: Mapping[str, Any]) -> dict[str, Any]:
    """The call with these options besides; callbacks are added to those that it has."""
    own = dict(options(call))
    for name, value in given.items():
        adds = name in ("link", "link_error")
        own[name] = [*listed(own.get(name)), *listed(value)] if adds else value
    return {**call, "options": own}


def _split(given: Mapping[str, Any], *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of these names, and the others."""
    of_these = {name: given[name] for name in names if name in given}
    return of_these, {name: given[name] for name in given if name not in names}


def over_chain(call: Call) -> Call:
    """``link`` and ``task_id`` are for its last call, ``link_error`` for each, others for the
    first."""
    if not options(call) or not parts(call):
        return call
    last, others = _split(options(call), "link", "task_id")
    each, first = _split(others, "link_error")
    calls = [spread(part, each) for part in parts(call)]
    calls[0] = spread(calls[0], first)
    calls[-1] = spread(calls[-1], last)
    return chain(calls)


def over_group(call: Call) -> Call:
    """``task_id`` is its own, others for each member."""
    own, each = _split(options(call), "task_id")
    if not each:
        return call
    if each.get("link"):
        raise ValueError("a group has no one end that a callback could follow; write group | call")
    return group([spread(part, each) for part in parts(call)], own)


def over_chord(call: Call) -> Call:
    """``link``, ``link_error`` and ``task_id`` are for its body, times of starting for the header,
    others for both."""
    given = options(call)
    if not given:
        return call
    of_body, both = _split(given, "link", "link_error", "task_id")
    starts, others = _split(both, *_STARTS)
    return chord(
        spread(header(call), {**others, **starts}), spread(body(call), {**others, **of_body})
    )


class Counted(NamedTuple):
    """A chord whose header is sent: its members are counted."""

    id: str
    size: int
    body: Call


def of_client(group_id: str, found: Call) -> Counted:
    """The chord of a Celery client, of which its members have brought the body; how many there are
    is not known yet. Raises what `freeze` and `start` do for what is no body."""
    ids = (message.derived_id(group_id, f"body/{n}") for n in itertools.count())
    frozen = freeze(found, ids.__next__)
    start(frozen, [[]])
    return Counted(group_id, 0, frozen)


class Start(NamedTuple):
    """What is sent now: calls of single tasks, with all that follows them in their options."""

    calls: list[dict[str, Any]]
    chords: list[Counted]


def start(call: Call, before: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Start:
    """What of a frozen call is sent now, with these arguments in front of its own."""
    made = Start([], [])
    _start(call, list(before), kwargs or {}, made)
    return made


def _start(call: Call, before: list[Any], kwargs: Mapping[str, Any], made: Start) -> None:
    what = kind(call)
    if what == "chain":
        first, *rest = parts(call)
        earlier = options(first).get("chain") or ()
        behind = [*reversed(rest), *earlier]
        _start(with_options(first, chain=behind) if behind else first, before, kwargs, made)
    elif what == "group":
        for n, part in enumerate(parts(call)):
            _start(member(part, options(call)["task_id"], n), before, kwargs, made)
    elif what == "chord":
        _start_chord(call, before, kwargs, made)
    else:
        made.calls.append(_given(call, before, kwargs))


def _start_chord(call: Call, before: list[Any], kwargs: Mapping[str, Any], made: Start) -> None:
    group_id, members = options(header(call))["task_id"], parts(header(call))
    if not members:
        return _start(body(call), [[]], {}, made)
    made.chords.append(Counted(group_id, len(members), body(call)))
    for n, part in enumerate(members):
        _start(member(part, group_id, n, body(call)), before, kwargs, made)
    return None


def _given(call: Call, before: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    own = list(call.get("args") or ())
    return {
        **call,
        "args": own if call.get("immutable") else [*before, *own],
        "kwargs": {**(call.get("kwargs") or {}), **({} if call.get("immutable") else kwargs)},
    }


def member(call: Call, group_id: str, index: int, of_chord: Call | None = None) -> dict[str, Any]:
    """The call as a member of a group: its last task is."""
    what = kind(call)
    if what == "chain":
        *calls, last = parts(call)
        return chain([*calls, member(last, group_id, index, of_chord)])
    if what == "chord":
        return chord(header(call), member(body(call), group_id, index, of_chord))
    if behind := options(call).get("chain"):
        last, *calls = behind
        return with_options(call, chain=[member(last, group_id, index, of_chord), *calls])
    chosen = {"group_id": group_id, "group_index": index, "chord": of_chord}
    return with_options(call, **chosen)


def tasks_in_place(call: Call) -> Iterator[Call]:
    """Every task of a frozen call that is not sent, those that would start first, each as the
    member of the group that it would be sent as.

    No chord waits for them but the one that the call as a whole is a member of: those in it have
    not begun to count.
    """
    what = kind(call)
    if what == "task":
        yield call
        inner: Iterable[Call] = reversed(options(call).get("chain") or ())
    elif what == "chord":
        inner = (header(call), body(call))
    elif what == "group":
        group_id = options(call).get("task_id")
        members = enumerate(parts(call))
        inner = (member(part, group_id, n) if group_id else part for n, part in members)
    else:
        inner = parts(call)
    for part in inner:
        yield from tasks_in_place(part)
