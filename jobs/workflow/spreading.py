"""Options of a chain, a group or a chord, handed down to the calls in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.workflow.forms import Call, body, chain, chord, group, header, listed, options, parts

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
