"""The forms of calls, made and taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

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
