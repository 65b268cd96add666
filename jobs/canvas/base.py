"""What calls and compositions of calls have in common, and their JSON forms."""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from typing import (
    TYPE_CHECKING,
    Any,
    NoReturn,
    Self,
)

from jobs import celery_names, workflow
from jobs.canvas.sending import send
from jobs.clock import aware
from jobs.exceptions import WorkflowError


class Composable(ABC):
    """A `Signature`, `Chain`, `Group` or `Chord`: it can be sent, and be a part of others."""

    __slots__ = ()

    options: Mapping[str, Any]

    @abstractmethod
    def set(self, *, immutable: bool | None = None, **options: Any) -> Self:
        """The same with these options besides. ``link`` and ``link_error`` are one call or
        several. ``immutable``: whether the calls that start it take no arguments besides their
        own."""

    @abstractmethod
    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """The same with these arguments in front of those of the calls that start it, these
        keywords and options besides; immutable calls keep their arguments."""

    def link(self, callback: Any) -> Any:
        """Have this call, or these, sent with its result when it has succeeded; returns them.

        It changes the value itself, as in Celery; so does `link_error`. `set` makes another one.
        """
        self._append("link", callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Have this call, or these, sent with the id of what has failed; returns them."""
        self._append("link_error", errback)
        return errback

    def on_error(self, errback: Any) -> Self:
        """`link_error` that returns the value itself."""
        self.link_error(errback)
        return self

    def _append(self, name: str, calls: Any) -> None:
        further = several(calls)
        as_dicts(further)  # raises for what is no call
        together = several(self.options.get(name))
        together += [call for call in further if call not in together]
        # Other values may share the old options.
        object.__setattr__(self, "options", {**self.options, name: together})

    @abstractmethod
    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The JSON form, that of its parts by ``convert``; options as they are."""

    def as_dict(self) -> dict[str, Any]:
        """Celery's JSON form, of which `jobs.signature` makes the value again.

        Raises `WorkflowError` for what contains itself, and `TypeError` for parts that are no
        calls.
        """
        return to_dict(self)

    def __json__(self) -> dict[str, Any]:
        """As an argument of another call it is its JSON form."""
        return self.as_dict()

    def keys(self) -> list[str]:
        """With `__getitem__`, for ``dict(call)``."""
        return list(self.as_dict())

    def __invert__(self) -> Any:
        """Send it, and wait for what it returns: ``~add.s(2, 2)``."""
        return self.apply_async().get()

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.CALLS))

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """`apply_async` with no options."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send it, inside a transaction as part of it.

        ``args`` and ``kwargs`` go in front of those of the calls that start it. Raises what
        `jobs.Task.apply_async` does, `UnknownTask`, `TypeError` for arguments that one of its
        tasks doesn't take, and `WorkflowError`.
        """
        return send(to_dict(self), args or (), kwargs or {}, plain_options(options))


def to_dict(call: Any, inside: tuple[int, ...] = ()) -> dict[str, Any]:
    """The JSON form of a call, given as a value or in its JSON form.

    ``inside``: identities of what it is a part of. Raises as `Composable.as_dict` says.
    """
    if id(call) in inside:
        raise WorkflowError(f"{_name(call)} contains itself; take it out of its own parts.")

    def convert(part: Any) -> dict[str, Any]:
        return to_dict(part, (*inside, id(call)))

    if isinstance(call, Composable):
        made = call.form(convert)
    elif isinstance(call, Mapping) and isinstance(call.get("task"), str):
        made = _from_dict(call, convert)
    else:
        raise TypeError(f"{_shown(call)} is no call; write task.s(…)")
    options = made.get("options") or {}
    return {**made, "options": {name: _plain(value, convert) for name, value in options.items()}}


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as their JSON forms have them."""
    return {name: _plain(value, to_dict) for name, value in options.items()}


def as_dicts(calls: Any) -> list[dict[str, Any]]:
    """The JSON forms of what ``link`` and ``link_error`` are given: one call or several.

    Raises `TypeError` for what is no call.
    """
    return [to_dict(call) for call in several(calls)]


def several(calls: Any) -> list[Any]:
    """None, one call, or what can be gone through for several, as a list."""
    if calls is None:
        return []
    if isinstance(calls, Composable | Mapping | str) or not isinstance(calls, Iterable):
        return [calls]
    return list(calls)


def linked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, of which callbacks and errbacks can be gone through more than once."""
    kept = (Composable, Mapping, str, list, tuple)
    return {
        name: list(value)
        if name in ("link", "link_error")
        and isinstance(value, Iterable)
        and not isinstance(value, kept)
        else value
        for name, value in options.items()
    }


def _from_dict(call: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    try:
        what = workflow.kind(call)
        if what == "task":
            return dict(call)
        if what == "chord":
            header = [convert(part) for part in workflow.parts(workflow.header(call))]
            of_header = workflow.options(workflow.header(call))
            body = convert(workflow.body(call))
            return workflow.chord(workflow.group(header, of_header), body, workflow.options(call))
        parts = [convert(part) for part in workflow.parts(call)]
    except ValueError as error:
        raise WorkflowError(str(error)) from None
    made = workflow.chain if what == "chain" else workflow.group
    return made(parts, workflow.options(call))


def _plain(value: Any, convert: Callable[[Any], Any]) -> Any:
    """As JSON and Celery have it."""
    if isinstance(value, dt.datetime):
        return aware(value).isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Composable):
        return convert(value)
    if isinstance(value, Mapping) and "subtask_type" in value:
        return convert(value)
    if isinstance(value, list | tuple | Set | Iterator):
        return [_plain(one, convert) for one in value]
    return value


def _shown(value: Any) -> str:
    """Values that tell what they are, without what a mistaken call may have of secrets."""
    return repr(value) if callable(value) or value is None else f"A {type(value).__name__}"


def _name(call: Any) -> str:
    return str(call.get("task")) if isinstance(call, Mapping) else type(call).__name__
