"""Into the one form that the package's docstring describes, with an id for each task and group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.workflow.forms import (
    ACCUMULATE,
    Call,
    body,
    chain,
    chord,
    ends_in_group,
    group,
    header,
    kind,
    options,
    parts,
    task,
    with_options,
)
from jobs.workflow.spreading import over_chain, over_chord, over_group


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
