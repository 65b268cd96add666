"""What of a call is sent now, and what travels along to be sent later."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jobs import message
from jobs.workflow.forms import Call, body, chain, chord, header, kind, options, parts, with_options
from jobs.workflow.freezing import freeze


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
