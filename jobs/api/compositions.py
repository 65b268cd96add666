"""Calls as values, and what is composed of them: ``signature``, ``chain``, ``group``, ``chord``."""

from __future__ import annotations

import datetime as dt
import functools
import math
import typing
from abc import ABC, abstractmethod
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from dataclasses import dataclass, field, replace
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    Self,
)

from jobs import registry
from jobs.api.results import AsyncResult
from jobs.api.sending import freeze, python_options, send
from jobs.exceptions import WorkflowError
from jobs.message import (
    HIDDEN,
    celery_names,
    new_id,
    workflow,
)
from jobs.timing.clock import aware


class Composable(ABC):
    """A `Signature`, `Chain`, `Group` or `Chord`: it can be sent, or be a part of another one."""

    __slots__ = ()

    options: Mapping[str, Any]

    @abstractmethod
    def set(self, *, immutable: bool | None = None, **options: Any) -> Self:
        """A copy with further options. ``link`` and ``link_error`` are one call or several.
        ``immutable``: whether the calls that start it take no arguments but their own."""

    @abstractmethod
    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """A copy with these arguments in front of those of the calls that start it, and further
        keywords and options. Immutable calls keep their arguments."""

    def link(self, callback: Any) -> Any:
        """Have this call, or these, sent with its result when it has succeeded; returns them.

        As in Celery, `link` and `link_error` change the value itself; `set` makes a copy.
        """
        self._append("link", callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Have this call, or these, sent with its id when it has failed; returns them."""
        self._append("link_error", errback)
        return errback

    def on_error(self, errback: Any) -> Self:
        """`link_error` that returns the value itself."""
        self.link_error(errback)
        return self

    def _append(self, name: str, calls: Any) -> None:
        further = several(calls)
        as_dicts(further)  # raises for anything that isn't a call
        together = several(self.options.get(name))
        together += [call for call in further if call not in together]
        # Other values may share the old options.
        object.__setattr__(self, "options", {**self.options, name: together})

    @abstractmethod
    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The JSON form. ``convert`` makes that of each part; options stay as they are."""

    def as_dict(self) -> dict[str, Any]:
        """Celery's JSON form, from which `jobs.signature` makes the value again.

        Raises `WorkflowError` if it contains itself, and `TypeError` for a part that isn't a call.
        """
        return to_dict(self)

    def __json__(self) -> dict[str, Any]:
        """For a call that is an argument of another one."""
        return self.as_dict()

    def keys(self) -> list[str]:
        """With `__getitem__`, for ``dict(call)``."""
        return list(self.as_dict())

    def __getitem__(self, name: str) -> Any:
        return self.as_dict()[name]

    def __or__(self, other: Composable) -> Composable:
        return joined(self, other)

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
        """Send it; inside a transaction, as part of that.

        ``args`` and ``kwargs`` go in front of those of the calls that start it. Raises what
        `jobs.Task.apply_async` raises, `UnknownTask`, `WorkflowError`, and `TypeError` for
        arguments that one of its tasks doesn't take.
        """
        return send(to_dict(self), args or (), kwargs or {}, plain_options(options))


def to_dict(call: Any, inside: tuple[int, ...] = ()) -> dict[str, Any]:
    """The JSON form of a call, which may be a value or a JSON form already.

    ``inside``: the `id` of everything it is a part of. Raises what `Composable.as_dict` raises.
    """
    if id(call) in inside:
        name = str(call.get("task")) if isinstance(call, Mapping) else type(call).__name__
        raise WorkflowError(f"{name} contains itself; take it out of its own parts.")

    def convert(part: Any) -> dict[str, Any]:
        return to_dict(part, (*inside, id(call)))

    if isinstance(call, Composable):
        made = call.form(convert)
    elif isinstance(call, Mapping) and isinstance(call.get("task"), str):
        made = _from_dict(call, convert)
    else:
        # Not repr() of anything: a mistaken call may hold secrets.
        what = repr(call) if callable(call) or call is None else f"A {type(call).__name__}"
        raise TypeError(f"{what} is no call; write task.s(…)")
    options = made.get("options") or {}
    return {**made, "options": {name: _plain(value, convert) for name, value in options.items()}}


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in their JSON forms."""
    return {name: _plain(value, to_dict) for name, value in options.items()}


def as_dicts(calls: Any) -> list[dict[str, Any]]:
    """The JSON forms of the value of ``link`` or ``link_error``: one call or several.

    Raises `TypeError` for anything that isn't a call.
    """
    return [to_dict(call) for call in several(calls)]


def several(calls: Any) -> list[Any]:
    """The value of ``link`` or ``link_error``, None, one call or several, as a list."""
    if calls is None:
        return []
    if isinstance(calls, Composable | Mapping | str) or not isinstance(calls, Iterable):
        return [calls]
    return list(calls)


def linked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with lists in place of iterators that could be read only once."""
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
    """The value in its JSON form, as Celery writes it."""
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


#: Characters of one argument in the text of a call.
_SHOWN = 100


if TYPE_CHECKING:  # type checkers bring it along
    from typing_extensions import TypeVar

    from jobs.api.results import GroupResult

    R = TypeVar("R", default=Any)
else:
    R = typing.TypeVar("R")


@dataclass(frozen=True, slots=True, repr=False)
class Signature(Composable, Generic[R]):
    """``task.s(1, x=2)``: the task's name, its arguments, and options of `Send`."""

    if TYPE_CHECKING:

        def __invert__(self) -> R: ...

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: ``task.si(…)``: it gets neither the result of a call before it nor arguments when it is sent.
    immutable: bool = False

    def __repr__(self) -> str:
        """The call as one would write it, with sensitive arguments hidden."""
        task = registry.tasks.get(self.task)
        sensitive = task.sensitive if task else frozenset()
        most = _spare(task, len(self.args)) if task and not self.immutable else 0
        values = [
            HIDDEN if any(str(n + more) in sensitive for more in range(most + 1)) else _short(value)
            for n, value in enumerate(self.args)
        ]
        values += [
            f"{name}={HIDDEN if name in sensitive else _short(value)}"
            for name, value in self.kwargs.items()
        ]
        return f"{self.task}({', '.join(values)})"

    def set(self, *, immutable: bool | None = None, **options: Any) -> Signature[R]:
        """A copy with further options."""
        return replace(
            self,
            options={**self.options, **linked(options)},
            immutable=self.immutable if immutable is None else immutable,
        )

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[R]:
        """A copy with these arguments in front of its own, and further keywords and options. An
        immutable call keeps its arguments."""
        call = self.set(**options) if options else self
        if self.immutable:
            return call
        return replace(
            call, args=(*(args or ()), *self.args), kwargs={**self.kwargs, **(kwargs or {})}
        )

    def freeze(self, task_id: str | None = None) -> Signature[R]:
        """A copy with an id, under which its result can be asked for before it is sent."""
        return self.set(task_id=task_id or self.options.get("task_id") or new_id())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now."""
        task: Any = registry.find(self.task)
        call = self.clone(args, kwargs)
        return task(*call.args, **call.kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send it, with these arguments in front of its own unless it is immutable; see
        `jobs.Task.apply_async`."""
        call = self.clone(args, kwargs).set(**options)
        sent: AsyncResult[R] = registry.find(self.task).apply_async(
            call.args, call.kwargs, **python_options(call.options)
        )
        return sent

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.task(
            self.task, self.args, self.kwargs, self.options, immutable=self.immutable
        )


def _spare(task: Any, args: int) -> int:
    """How far to the right these positional arguments may still move: how many others may be put
    in front of them."""
    most = max(int(place) + 1 for place in ("-1", *task.sensitive) if place.lstrip("-").isdigit())
    return max(0, (most if task._arity is None else task._arity.stop - 1) - args)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True, slots=True, repr=False)
class _Composition(Composable):
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def _with_starts(self, change: Callable[[Composable], Composable]) -> Any:
        """The same, with this change to the calls that start it."""

    def set(self, *, immutable: bool | None = None, **options: Any) -> Any:
        made = replace(self, options={**self.options, **linked(options)})
        if immutable is None:
            return made
        return made._with_starts(lambda call: call.set(immutable=immutable))

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        made = self._with_starts(lambda call: call.clone(args, kwargs))
        return replace(made, options={**self.options, **linked(options)})

    def freeze(self, task_id: str | None = None) -> dict[str, Any]:
        """Its JSON form with an id for each call and group; `jobs.signature` makes a value of it.
        ``task_id``: the id of its last call. Raises what `as_dict` raises.
        """
        return freeze(self.as_dict(), {"task_id": task_id} if task_id else {})

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send it with these arguments, as in Celery."""
        return self.apply_async(args, **options)


@dataclass(frozen=True, slots=True, repr=False)
class Chain(_Composition):
    """Calls one after the other, each given the result of the one before it.

    Inside a transaction, all of it is sent as part of that. When a call fails, those after it end
    as it did. Retry it, in the admin or by `jobs.control.retry`, and the chain goes on.

    Its handle is that of the last call, whose ``parent`` is that of the call before. Options are
    for the first call, but ``link`` and ``task_id`` for the last and ``link_error`` for each.
    """

    tasks: tuple[Composable, ...]

    def _with_starts(self, change: Callable[[Composable], Composable]) -> Chain:
        first, *rest = self.tasks
        return replace(self, tasks=(change(first), *rest))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks))

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.chain(map(convert, self.tasks), self.options)


@dataclass(frozen=True, slots=True, repr=False)
class Group(_Composition):
    """Calls beside each other. Members of a group among them are members of this one.

    Its handle is a `GroupResult`. Options are for each call, but ``task_id`` is the group's own.
    It can't have ``link``: for a call after all of them write a chord, ``group | call``.
    """

    if TYPE_CHECKING:

        def __call__(self, **options: Any) -> GroupResult: ...

        def delay(self, *args: Any, **kwargs: Any) -> GroupResult: ...

        def apply_async(
            self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
        ) -> GroupResult: ...

        def __invert__(self) -> list[Any]: ...

    tasks: tuple[Composable, ...]

    def _with_starts(self, change: Callable[[Composable], Composable]) -> Group:
        return replace(self, tasks=tuple(map(change, self.tasks)))

    def __repr__(self) -> str:
        return f"group([{', '.join(map(repr, self.tasks))}])"

    def link(self, callback: Any) -> NoReturn:
        raise WorkflowError(
            "A group has no one end that a callback could follow; write group | call, which is "
            "sent when all of them have succeeded, or link each of the calls."
        )

    def group(self) -> Group:
        """Itself, for code written for Celery, whose ``task.chunks(…)`` is no group yet."""
        return self

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Group:
        """A copy whose calls start one after the other: the first after ``start`` seconds, each
        ``step`` seconds after the one before, none later than ``stop``."""
        waits = (start + n * step for n in range(len(self.tasks)))
        last = math.inf if stop is None else stop
        return replace(
            self,
            tasks=tuple(
                call.set(countdown=min(seconds, last))
                for call, seconds in zip(self.tasks, waits, strict=True)
            ),
        )

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.group(map(convert, self.tasks), self.options)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Composable]:
        return iter(self.tasks)


@dataclass(frozen=True, slots=True, repr=False)
class Chord(_Composition):
    """A header of calls beside each other, and a body: when all have succeeded, it is called with
    the list of their results, in the header's order.

    If one fails or is revoked, the body ends as FAILURE (`ChordError`) once the others have ended
    too. Retry that call, and the chord goes on.

    Its handle is that of the body, whose ``parent`` is the header's `GroupResult`. ``task_id``,
    ``link`` and ``link_error`` are for the body, ``countdown`` and ``eta`` for the header, other
    options for both.
    """

    header: Group
    body: Composable | None = None

    def _with_starts(self, change: Callable[[Composable], Composable]) -> Chord:
        return replace(self, header=self.header._with_starts(change))

    def __repr__(self) -> str:
        return f"chord([{', '.join(map(repr, self.header))}], {self.body!r})"

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        if self.body is None:
            raise WorkflowError("A chord has no body; write chord(header, body).")
        return workflow.chord(convert(self.header), convert(self.body), self.options)

    def __call__(self, body: Composable | None = None, **options: Any) -> Any:
        """Send it, with this body if it has none: ``chord(header)(body)``, as in Celery."""
        return (self if body is None else replace(self, body=body)).apply_async(**options)


def joined(first: Composable, then: Composable) -> Composable:
    """``first | then``. A group and what follows it make a chord; what follows a chord follows its
    body. In a chain, a group of one call is that call."""
    if isinstance(first, Group):
        return Chord(first, then)
    if isinstance(first, Chord) and first.body is not None:
        return replace(first, body=joined(first.body, then))
    if isinstance(first, Chain) and first.tasks and not first.options:
        *calls, last = first.tasks
        several = isinstance(last, Chord) or (isinstance(last, Group) and len(last) != 1)
        behind = joined(last, then) if several else None
        return Chain((*calls, behind) if behind else (*first.tasks, *_calls(then)))
    return Chain((first, *_calls(then)))


def _calls(call: Composable) -> tuple[Composable, ...]:
    plain = isinstance(call, Chain) and not call.options
    return call.tasks if plain else (call,)  # type: ignore[attr-defined]


def chain(*calls: Composable) -> Composable:
    """Calls one after the other: ``chain(fetch.s(url), parse.s(), store.s())``, or ``a | b | c``.

    A group of one call among them is that call: what follows gets its result, not a list. Raises
    `WorkflowError` for a chain without calls.
    """
    several = _listed(calls)
    if not several:
        raise WorkflowError("a chain needs a call at least: chain(first.s(…), second.s(…))")
    first, *rest = several
    if not rest or (isinstance(first, Group) and len(first) == 1):
        first = Chain((first,))  # in which a group of one is its call
    return functools.reduce(joined, rest, first)


def group(*calls: Composable | Iterable[Composable]) -> Group:
    """Calls beside each other: ``group(a.s(1), a.s(2))``, or one iterable of calls."""
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
    """A call, by the name of its task or from a JSON form (`as_dict`); that may also be a chain, a
    group or a chord.

    Raises `WorkflowError` for a dict that isn't the JSON form of a call.
    """
    options = linked({**(options or {}), **more})
    if isinstance(task, str):
        return Signature(task, tuple(args), dict(kwargs or {}), options, immutable)
    form = to_dict(task)
    options = {**form["options"], **options}
    what = workflow.kind(form)
    if what == "task":
        args, kwargs = tuple(form.get("args") or ()), dict(form.get("kwargs") or {})
        return Signature(form["task"], args, kwargs, options, bool(form.get("immutable")))
    if what == "chord":
        header, body = workflow.header(form), workflow.body(form)
        return Chord(signature(header), signature(body), options=options)
    parts = tuple(map(signature, workflow.parts(form)))
    return Chain(parts, options=options) if what == "chain" else Group(parts, options=options)


def _listed(calls: Any) -> tuple[Composable, ...]:
    """The calls of ``group(a, b)`` or ``group([a, b])``."""
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
