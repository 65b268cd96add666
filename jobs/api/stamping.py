"""Stamps: marks that a call carries in its headers, put on all calls of a composition at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from jobs.message import workflow
from jobs.message.call import OPTIONS

#: What a method of a visitor returns: stamps by their names. With ``"stamped_headers"``, a list of
#: names, the others are headers that are no stamps. None: no stamps.
Stamps = Mapping[str, Any] | None


class StampingVisitor(ABC):
    """Chooses stamps for the parts of a composition, for ``call.stamp(visitor)``.

    Each method gets a part, a `jobs.Signature`, and the stamps that it has been given so far, and
    returns further ones for it and all within it.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> Stamps:
        """For a call of one task."""

    def on_group_start(self, sig: Any, **headers: Any) -> Stamps:
        """Before the calls of a group."""
        return None

    def on_group_end(self, sig: Any, **headers: Any) -> None:  # noqa: B027  for whom it concerns
        """After the calls of a group."""

    def on_chain_start(self, sig: Any, **headers: Any) -> Stamps:
        """Before the calls of a chain."""
        return None

    def on_chain_end(self, sig: Any, **headers: Any) -> None:  # noqa: B027  for whom it concerns
        """After the calls of a chain."""

    def on_chord_header_start(self, sig: Any, **headers: Any) -> Stamps:
        """Before the header of a chord; by default as for a group."""
        return self.on_group_start(sig.header, **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        """After the header of a chord; by default as for a group."""
        self.on_group_end(sig.header, **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> Stamps:
        """For the body of a chord, beside what `on_signature` says of it."""
        return None

    def on_callback(self, callback: Any, **headers: Any) -> Stamps:
        """For a call that is linked to another one, beside `on_signature`."""
        return None

    def on_errback(self, errback: Any, **headers: Any) -> Stamps:
        """For an errback of another call, beside `on_signature`."""
        return None


def put(
    call: Any,
    visitor: StampingVisitor | None,
    stamps: Mapping[str, Any],
    signature: Callable[[Any], Any],
    *,
    append: bool,
) -> None:
    """Stamp all calls of this one: see `jobs.Signature.stamp`. ``signature``: makes one of its JSON
    form. Raises `ValueError` for a name that is an option of a call."""
    names = stamps.get("stamped_headers", stamps)
    given = {name: stamps[name] for name in names if name in stamps and name != "stamped_headers"}

    def asked(answer: Stamps) -> dict[str, Any]:
        """The stamps so far, and those that a visitor has answered."""
        found = answer or {}
        names = found.get("stamped_headers", found)
        return {**given, **{name: found[name] for name in names if name in found}}

    def down(part: Any, answer: Stamps) -> Any:
        put(part, visitor, asked(answer), signature, append=append)
        return part

    headers = {**given, "stamped_headers": list(given)} if given else {}
    for name in ("link", "link_error"):
        if linked := workflow.listed(call.options.get(name)):
            visit = getattr(visitor, "on_callback" if name == "link" else "on_errback", None)
            calls = [signature(one) for one in linked]
            call.options[name] = [
                down(one, visit(one, **headers) if visit else None) for one in calls
            ]
    if call.subtask_type == "group":
        answer = visitor.on_group_start(call, **headers) if visitor else None
        call.tasks = [down(one, answer) for one in call.tasks]
        if visitor:
            visitor.on_group_end(call, **headers)
    elif call.subtask_type == "chain":
        answer = visitor.on_chain_start(call, **headers) if visitor else None
        call.tasks = [down(one, answer) for one in call.tasks]
        if visitor:
            visitor.on_chain_end(call, **headers)
    elif call.subtask_type == "chord":
        answer = visitor.on_chord_header_start(call, **headers) if visitor else None
        call.header.tasks = [down(one, answer) for one in call.header.tasks]
        if visitor:
            visitor.on_chord_header_end(call, **headers)
        if call.body is not None:
            call.body = down(call.body, visitor.on_chord_body(call, **headers) if visitor else None)
    else:
        of_visitor = (visitor.on_signature(call, **headers) if visitor else None) or {}
        _write(call, asked(of_visitor), of_visitor, append=append)


def _write(
    call: Any, every: Mapping[str, Any], of_visitor: Mapping[str, Any], *, append: bool
) -> None:
    """Write stamps into the options of a call of one task, in Celery's form."""
    options = call.options
    names: list[str] = list(options.get("stamped_headers") or ())
    for name, value in every.items():
        if name in OPTIONS:
            raise ValueError(
                f"A stamp can't be called {name!r}, which is an option of a call; give it another "
                "name."
            )
        if name not in names:
            names.append(name)
            options[name] = value
        elif append:
            options[name] = _together(options.get(name), value)
        elif name in of_visitor:
            options[name] = value
    further = {
        name: value
        for name, value in of_visitor.items()
        if name not in every and name != "stamped_headers"
    }
    if further:
        options["headers"] = {**(options.get("headers") or {}), **further}
    if names:
        options["stamped_headers"] = names


def _together(first: Any, then: Any) -> list[Any]:
    """The values of both, each once, in order."""
    values = [*_listed(first), *_listed(then)]
    return [one for n, one in enumerate(values) if one not in values[:n]]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
