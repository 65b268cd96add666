"""Calls in Celery's JSON form: which of a composition are sent now, and which travel along.

A call is frozen first: every task and group gets its id. Then `start` says what is sent now.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jobs import message

Call = Mapping[str, Any]

#: Returns its arguments: put behind a group that must have one result, such as a group's member.
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
    """``task``, ``chain``, ``group`` or ``chord``. Raises `ValueError` for anything else."""
    found = call.get("subtask_type") or "task"
    if found in ("xmap", "xstarmap"):
        return "task"  # Celery's names for calls of its builtin tasks
    if found not in _KINDS or not isinstance(call.get("task"), str):
        name = str(call.get("task"))[:100]  # and no argument: it may be secret
        raise ValueError(f"what calls itself {name!r}, of the kind {found!r}, is no call")
    return str(found)


def options(call: Call) -> Mapping[str, Any]:
    return call.get("options") or {}


def parts(call: Call) -> list[Call]:
    """The calls of a chain, or the members of a group."""
    return list((call.get("kwargs") or {}).get("tasks") or ())


def header(call: Call) -> dict[str, Any]:
    """A chord's header, as a group."""
    found = (call.get("kwargs") or {}).get("header") or []
    return dict(found) if isinstance(found, Mapping) else group(found)


def body(call: Call) -> Call:
    """A chord's body. Raises `ValueError` when it has none."""
    found = (call.get("kwargs") or {}).get("body")
    if not isinstance(found, Mapping):
        raise ValueError("a chord has no body; write chord(header, body)")
    return found


def with_options(call: Call, **changes: Any) -> dict[str, Any]:
    return {**call, "options": {**options(call), **changes}}


def listed(calls: Any) -> list[Any]:
    """The value of ``link`` or ``link_error``, none, one call or several, as a list."""
    if not calls:
        return []
    return list(calls) if isinstance(calls, list | tuple) else [calls]


def tasks(call: Call) -> Iterator[Call]:
    """Every task of a call, in the order in which they start."""
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
    """The last task of a call that doesn't end in a group."""
    what = kind(call)
    if what == "chain":
        return last(parts(call)[-1])
    if what == "chord":
        return last(body(call))
    behind = options(call).get("chain")
    return last(behind[0]) if behind else call


def that_fail(call: Call) -> Iterator[Call]:
    """The tasks of a frozen call whose errbacks are sent when it couldn't be sent: the first task
    of a chain, that of a chord's body, those of all members of a group."""
    what = kind(call)
    if what == "chain":
        yield from that_fail(parts(call)[0])
    elif what == "chord":
        yield from that_fail(body(call))
    elif what == "group":
        for part in parts(call):
            yield from that_fail(part)
    else:
        yield call


def freeze(call: Call, new_id: Callable[[], str]) -> dict[str, Any]:
    """The same call with an id for each of its tasks and groups. Ids that it has stay.

    A chain becomes flat, and what follows a group in it becomes the body of a chord. Raises
    `ValueError` for what can't be: ``link`` of a group, which has no one end.
    """
    what = kind(call)
    if what == "task":
        if options(call).get("task_id"):
            return dict(call)
        return with_options(call, task_id=new_id())
    if what == "chain":
        steps = [freeze(step, new_id) for step in _steps(call)]
        if not steps:
            raise ValueError("a chain needs a call at least")
        return steps[0] if len(steps) == 1 else chain(steps)
    if what == "chord":
        call = over_chord(call)
        frozen = freeze(header(call), new_id)
        return chord(frozen, freeze(body(call), new_id))
    members = []
    for one in _flat(call):
        if ends_in_group(one):  # a member has one end, whose result is its own
            one = chain([one, task(ACCUMULATE, (), {"index": 0})])
        members.append(freeze(one, new_id))
    return group(members, {"task_id": options(call).get("task_id") or new_id()})


def _steps(call: Call) -> list[Call]:
    """A chain's parts in order: a group and what follows it become a chord, what follows a chord
    goes into its body."""
    steps: list[Call] = []
    for part in parts(over_chain(call)):
        step = _unrolled(part)
        steps += _steps(step) if kind(step) == "chain" else [step]
    for n, step in enumerate(steps[:-1]):
        if kind(step) in ("group", "chord"):
            return [*steps[:n], _before(step, steps[n + 1 :])]
    return steps


def _unrolled(step: Call) -> Call:
    """In a chain, a group of one call is that call, as in Celery. A group with an id stays one:
    somebody may wait for it."""
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
    """A group's members, with the members of groups among them."""
    found: list[Call] = []
    for member in parts(over_group(call)):
        found += _flat(member) if kind(member) == "group" else [member]
    return found


#: Options of a chord that say when its header starts.
_STARTS = ("countdown", "eta")
#: Options of what has one end that say which group's member that end is, and of which chord.
_PLACE = ("group_id", "group_index", "chord")


def spread(call: Call, given: Mapping[str, Any]) -> dict[str, Any]:
    """The call with further options; callbacks and stamps are added to those that it has."""
    own = options(call)
    together = merged(own, given)
    for name in given.keys() & {"link", "link_error"}:
        together[name] = [*listed(own.get(name)), *listed(given[name])]
    return {**call, "options": together}


def merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A call's options with further ones, which come first. But stamps that it has keep their
    values, as in Celery."""
    names = own.get("stamped_headers")
    if not isinstance(names, list | tuple | set | frozenset) or not names:
        return {**own, **given}
    new = [name for name in listed(given.get("stamped_headers")) if name not in names]
    further = {name: value for name, value in given.items() if name not in names}
    return {**own, **further, "stamped_headers": [*names, *new]}


def _split(given: Mapping[str, Any], *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of these names, and the others."""
    of_these = {name: given[name] for name in names if name in given}
    return of_these, {name: given[name] for name in given if name not in names}


def over_chain(call: Call) -> Call:
    """Hand a chain's options to its calls: ``link``, ``task_id`` and its place in a group to the
    last, ``link_error`` to each, others to the first."""
    if not options(call) or not parts(call):
        return call
    last, others = _split(options(call), "link", "task_id", *_PLACE)
    each, first = _split(others, "link_error")
    calls = [spread(part, each) for part in parts(call)]
    calls[0] = spread(calls[0], first)
    calls[-1] = spread(calls[-1], last)
    return chain(calls)


def over_group(call: Call) -> Call:
    """Hand a group's options to its members, all but ``task_id``. A group that a Celery client has
    put last into a member of a chord has a place in that chord, as each of its own members has: of
    these the client has said so, too."""
    own, each = _split(options(call), "task_id")
    if each.get("chord"):
        _, each = _split(each, *_PLACE)
    if not each:
        return call
    if each.get("link"):
        raise ValueError("a group has no one end that a callback could follow; write group | call")
    return group([spread(part, each) for part in parts(call)], own)


def over_chord(call: Call) -> Call:
    """Hand a chord's options on: ``link``, ``link_error``, ``task_id`` and its place in a group to
    the body, times of starting to the header, others to both."""
    given = options(call)
    if not given:
        return call
    of_body, both = _split(given, "link", "link_error", "task_id", *_PLACE)
    if of_body.get("task_id") == options(header(call)).get("task_id"):
        of_body.pop("task_id", None)  # Celery's clients give a chord the id of its header
    starts, others = _split(both, *_STARTS)
    return chord(
        spread(header(call), {**others, **starts}), spread(body(call), {**others, **of_body})
    )


class Counted(NamedTuple):
    """A chord whose header is sent, and whose members are counted as they end."""

    id: str
    size: int
    body: Call


def of_client(group_id: str, found: Call) -> Counted:
    """The chord of a Celery client, whose members carry its body. How many there are is not known.

    Raises what `freeze` and `start` raise for a body that isn't a call.
    """
    ids = (message.derived_id(group_id, f"body/{n}") for n in itertools.count())
    frozen = _outside(freeze(found, ids.__next__), group_id)
    start(frozen, [[]])
    return Counted(group_id, 0, frozen)


def _outside(call: Call, group_id: str) -> dict[str, Any]:
    """A frozen body without the header's group, which Celery wrongly writes into its last task."""
    what = kind(call)
    if what == "chain":
        *calls, end = parts(call)
        return chain([*calls, _outside(end, group_id)])
    if what == "chord":
        return chord(header(call), _outside(body(call), group_id))
    if options(call).get("group_id") == group_id:
        return with_options(call, group_id=None)
    return dict(call)


class Start(NamedTuple):
    """The calls that are sent now, each of a single task, with what follows it in its options."""

    calls: list[dict[str, Any]]
    chords: list[Counted]


def start(call: Call, before: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Start:
    """What a frozen call sends now, with these arguments in front of its own."""
    made = Start([], [])
    _start(call, list(before), kwargs or {}, made)
    return made


def _start(call: Call, before: list[Any], kwargs: Mapping[str, Any], made: Start) -> None:
    what = kind(call)
    if what == "chain":
        first, *rest = parts(call)
        behind = [*reversed(rest), *(options(first).get("chain") or ())]
        _start(with_options(first, chain=behind) if behind else first, before, kwargs, made)
    elif what == "group":
        for part in _members(call):
            _start(part, before, kwargs, made)
    elif what == "chord":
        group_id, members = options(header(call))["task_id"], parts(header(call))
        if not members:
            return _start(body(call), [[]], {}, made)
        made.chords.append(Counted(group_id, len(members), body(call)))
        for n, part in enumerate(members):
            _start(member(part, group_id, n, body(call)), before, kwargs, made)
    else:
        args, own = list(call.get("args") or ()), call.get("kwargs") or {}
        if not call.get("immutable"):
            args, own = [*before, *args], {**own, **kwargs}
        made.calls.append({**call, "args": args, "kwargs": {**own}})
    return None


def _members(call: Call) -> list[Call]:
    """A group's parts as its members, but for those that are members of a chord which the group is
    the end of a member of."""
    group_id = options(call).get("task_id")
    return [
        member(part, group_id, n) if group_id and not _in_chord(part) else part
        for n, part in enumerate(parts(call))
    ]


def _in_chord(call: Call) -> bool:
    what = kind(call)
    if what == "chain":
        return any(map(_in_chord, parts(call)[-1:]))
    return _in_chord(body(call)) if what == "chord" else bool(options(call).get("chord"))


def member(call: Call, group_id: str, index: int, of_chord: Call | None = None) -> dict[str, Any]:
    """The call as a member of a group: its last task carries the group and the place in it."""
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
    """Every task of a frozen call that will not be sent, in the order in which they would start,
    each as the member of the group that it would have been sent in. Also of a call as a Celery
    client has frozen it, where what follows a group can be in the group's options.

    A chord within the call has not begun to count, so none of them is its member: only the chord
    that the whole call belongs to waits for them.
    """
    what = kind(call)
    if what == "task":
        yield call
        inner: Iterable[Call] = reversed(options(call).get("chain") or ())
    elif what == "chord":
        group_id, members = options(header(call)).get("task_id"), enumerate(parts(header(call)))
        headers = [member(part, group_id, n) if group_id else part for n, part in members]
        inner = (*headers, body(call))
    elif what == "group":
        inner = (*_members(call), *reversed(options(call).get("chain") or ()))
    else:
        inner = parts(call)
    for part in inner:
        yield from tasks_in_place(part)
