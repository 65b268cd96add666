"""The functions that people write: ``chain``, ``group``, ``chord``, ``signature``."""

from __future__ import annotations

import datetime as dt
import functools
import math
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


#: Characters of one argument in the text of a call.
_SHOWN = 100


@dataclass(frozen=True, slots=True, repr=False)
class Signature(Composable):
    """``task.s(1, x=2)``: the task's name, its arguments, and options of `Send`."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: ``task.si(…)``: it takes no result of a task before it, nor arguments of the sending.
    immutable: bool = False

    def __repr__(self) -> str:
        """As the call is written; values of sensitive arguments are hidden."""
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

    def __getitem__(self, name: str) -> Any:
        return self.as_dict()[name]

    def set(self, *, immutable: bool | None = None, **options: Any) -> Signature:
        """The same call with these options besides."""
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
    ) -> Signature:
        """The same call with these arguments in front of its own, these keywords and options
        besides; one that is immutable keeps its arguments."""
        call = self.set(**options) if options else self
        if self.immutable:
            return call
        return replace(
            call, args=(*(args or ()), *self.args), kwargs={**self.kwargs, **(kwargs or {})}
        )

    def freeze(self, task_id: str | None = None) -> Signature:
        """The same call with an id, by which its result can be asked for before it is sent."""
        return self.set(task_id=task_id or self.options.get("task_id") or new_id())

    def __or__(self, other: Composable) -> Composable:
        return joined(self, other)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now."""
        task: Any = registry.find(self.task)
        call = self.clone(args, kwargs)
        return task(*call.args, **call.kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """Send it, with these arguments in front of its own unless it is immutable; see
        `jobs.Task.apply_async`."""
        call = self.clone(args, kwargs).set(**options)
        sent: AsyncResult[Any] = registry.find(self.task).apply_async(
            call.args, call.kwargs, **python_options(call.options)
        )
        return sent

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.task(
            self.task, self.args, self.kwargs, self.options, immutable=self.immutable
        )


def _spare(task: Any, args: int) -> int:
    """How many places so many positional arguments may yet move, since others can be put in front
    of them."""
    most = max(int(place) + 1 for place in ("-1", *task.sensitive) if place.lstrip("-").isdigit())
    return max(0, (most if task._arity is None else task._arity.stop - 1) - args)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True, slots=True, repr=False)
class _Composition(Composable):
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def set(self, *, immutable: bool | None = None, **options: Any) -> Any:
        """The same with these options besides; `apply_async` says what they are for."""
        made = replace(self, options={**self.options, **linked(options)})
        return made if immutable is None else made._set_immutable(immutable)

    def _set_immutable(self, immutable: bool) -> Any:
        """The same, of which the calls that start it are immutable, or not."""
        raise NotImplementedError

    def freeze(self, task_id: str | None = None) -> dict[str, Any]:
        """Its JSON form with an id for each of its calls and groups; `jobs.signature` makes a value
        of it. ``task_id``: that of its end.

        Raises as `as_dict` does.
        """
        return freeze(self.as_dict(), {"task_id": task_id} if task_id else {})

    def __or__(self, other: Composable) -> Composable:
        return joined(self, other)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send it with these arguments, as in Celery."""
        return self.apply_async(args, **options)


@dataclass(frozen=True, slots=True, repr=False)
class Chain(_Composition):
    """Calls one after the other, each given the result of the one before it.

    Sent inside a transaction, all of it is part of that. When one fails, those after it end as that
    one did; tried again from the admin, or by `jobs.control.retry`, the chain goes on.

    The handle is that of its last call, whose ``parent`` is that of the one before. Options are for
    the first call, ``link`` and ``task_id`` for the last, ``link_error`` for each.
    """

    tasks: tuple[Composable, ...]

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Chain:
        first, *rest = self.tasks
        tasks = (first.clone(args, kwargs), *rest)
        return replace(self, tasks=tasks, options={**self.options, **linked(options)})

    def _set_immutable(self, immutable: bool) -> Chain:
        first, *rest = self.tasks
        return replace(self, tasks=(first.set(immutable=immutable), *rest))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks))

    def __getitem__(self, name: str) -> Any:
        return self.as_dict()[name]

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.chain(map(convert, self.tasks), self.options)


@dataclass(frozen=True, slots=True, repr=False)
class Group(_Composition):
    """Calls beside each other. A group among them is part of this one.

    The handle is a `GroupResult`. Options are for each call, but for ``task_id``, which is the
    group's own; ``link`` it can't have: what follows all of them is a chord, ``group | call``.
    """

    tasks: tuple[Composable, ...]

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Group:
        tasks = tuple(call.clone(args, kwargs) for call in self.tasks)
        return replace(self, tasks=tasks, options={**self.options, **linked(options)})

    def _set_immutable(self, immutable: bool) -> Group:
        return replace(self, tasks=tuple(call.set(immutable=immutable) for call in self.tasks))

    def __repr__(self) -> str:
        return f"group([{', '.join(map(repr, self.tasks))}])"

    def __getitem__(self, name: str) -> Any:
        return self.as_dict()[name]

    def link(self, callback: Any) -> NoReturn:
        raise WorkflowError(
            "A group has no one end that a callback could follow; write group | call, which is "
            "sent when all of them have succeeded, or link each of the calls."
        )

    def group(self) -> Group:
        """Itself: Celery's ``task.chunks(…)`` has to be made a group first."""
        return self

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Group:
        """The same calls, the first after ``start`` seconds, each ``step`` later than the one
        before, and none later than after ``stop``."""
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
    """A header of calls beside each other, and a body, which is given the list of their results in
    the header's order when all have succeeded.

    When one fails or is revoked, the body ends as FAILURE (`ChordError`) when the others have ended
    too; tried again, the chord goes on.

    The handle is that of the body, whose ``parent`` is the header's `GroupResult`. ``task_id``,
    ``link`` and ``link_error`` are for the body, ``countdown`` and ``eta`` for the header's calls,
    other options for both.
    """

    header: Group
    body: Composable | None = None

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Chord:
        header = self.header.clone(args, kwargs)
        return replace(self, header=header, options={**self.options, **linked(options)})

    def _set_immutable(self, immutable: bool) -> Chord:
        return replace(self, header=self.header.set(immutable=immutable))

    def __repr__(self) -> str:
        return f"chord([{', '.join(map(repr, self.header))}], {self.body!r})"

    def __getitem__(self, name: str) -> Any:
        return self.as_dict()[name]

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        if self.body is None:
            raise WorkflowError("A chord has no body; write chord(header, body).")
        return workflow.chord(convert(self.header), convert(self.body), self.options)

    def __call__(self, body: Composable | None = None, **options: Any) -> Any:
        """Send it, with this body if it has none: ``chord(header)(body)``, as in Celery."""
        return (self if body is None else replace(self, body=body)).apply_async(**options)


def joined(first: Composable, then: Composable) -> Composable:
    """``first | then``: what follows a group makes a chord of it, what follows a chord follows its
    body. A group of one call is that call in a chain."""
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
