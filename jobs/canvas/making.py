"""The functions that people write: ``chain``, ``group``, ``chord``, ``signature``."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs import workflow
from jobs.canvas.base import Composable, linked, to_dict
from jobs.canvas.calls import Signature
from jobs.canvas.composing import Chain, Chord, Group, joined
from jobs.exceptions import WorkflowError


def chain(*calls: Composable) -> Composable:
    """Calls one after the other: ``chain(fetch.s(url), parse.s(), store.s())``, or ``a | b | c``.
    A group of one call among them is that call: what follows gets its result, not a list.

    Raises `WorkflowError` for a chain of nothing.
    """
    several = _listed(calls)
    if not several:
        raise WorkflowError("a chain needs a call at least: chain(first.s(…), second.s(…))")
    first, *rest = several
    if not rest or (isinstance(first, Group) and len(first) == 1):
        first = Chain((first,))  # in which a group of one is its call
    return functools.reduce(joined, rest, first)


def group(*calls: Composable | Iterable[Composable]) -> Group:
    """Calls beside each other: ``group(a.s(1), a.s(2))``, or of one iterable of calls."""
    return Group(_listed(calls))


def chord(
    header: Group | Iterable[Composable], body: Composable | None = None, **options: Any
) -> Chord:
    """``chord([a.s(1), a.s(2)], total.s())``: the body gets the list of the header's results.

    ``chord(header)(body)`` sends it, as in Celery.
    """
    made = header if isinstance(header, Group) else group(header)
    return Chord(made, None if body is None else _call(body), options=options)


def signature(
    task: str | Mapping[str, Any] | Composable,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """The call of a task by its name, or of a JSON form (`as_dict`), also of a chain, a group or a
    chord.

    Raises `WorkflowError` for what is no JSON form of a call.
    """
    options = linked({**(options or {}), **more})
    if isinstance(task, str):
        return Signature(task, tuple(args), dict(kwargs or {}), options, immutable)
    form = to_dict(task)
    form["options"] = {**form["options"], **options}
    return _FROM_DICT[workflow.kind(form)](form)


def _signature(form: dict[str, Any]) -> Signature:
    given = tuple(form.get("args") or ()), dict(form.get("kwargs") or {})
    return Signature(form["task"], *given, form["options"], bool(form.get("immutable")))


def _chain(form: dict[str, Any]) -> Chain:
    return Chain(tuple(map(signature, workflow.parts(form))), options=form["options"])


def _group(form: dict[str, Any]) -> Group:
    return Group(tuple(map(signature, workflow.parts(form))), options=form["options"])


def _chord(form: dict[str, Any]) -> Chord:
    header, body = _group(workflow.header(form)), signature(workflow.body(form))
    return Chord(header, body, options=form["options"])


def _listed(calls: Any) -> tuple[Composable, ...]:
    """``(a, b)`` and ``([a, b],)`` are the same."""
    if len(calls) == 1 and not isinstance(calls[0], Composable | Mapping):
        (calls,) = calls
    return tuple(map(_call, calls))


def _call(call: Any) -> Composable:
    if isinstance(call, Composable):
        return call
    if isinstance(call, Mapping):
        made: Composable = signature(call)
        return made
    to_dict(call)  # which raises
    raise AssertionError("no call")


_FROM_DICT = {"task": _signature, "chain": _chain, "group": _group, "chord": _chord}
