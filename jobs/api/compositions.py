"""Calls as values, and compositions of them: ``signature``, ``chain``, ``group``, ``chord``.

As in Celery, each is a dict: its JSON form. Its items can be read as attributes, too, and each part
of a composition is such a value itself.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import typing
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
    Generic,
    NoReturn,
    Self,
    SupportsIndex,
)

from jobs import registry
from jobs.api.results import AsyncResult
from jobs.api.sending import find, freeze, handle_of, python_options, send
from jobs.api.stamping import StampingVisitor, put
from jobs.conf.values import check_whole
from jobs.exceptions import WorkflowError
from jobs.message import (
    HIDDEN,
    celery_names,
    new_id,
    workflow,
)
from jobs.timing.clock import aware

if TYPE_CHECKING:  # type checkers bring it along
    from typing_extensions import TypeVar

    from jobs.api.results import GroupResult

    R = TypeVar("R", default=Any)
else:
    R = typing.TypeVar("R")

V = typing.TypeVar("V")

#: Options whose values are further calls.
_LINKS = frozenset({"link", "link_error"})


class _Item(Generic[V]):
    """An item of the dict, as an attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, call: Any, owner: type | None = None) -> V:
        found: Any = self if call is None else call[self._name]
        value: V = found
        return value

    def __set__(self, call: Any, value: V) -> None:
        call[self._name] = value


class Signature(dict[str, Any], Generic[R]):
    """``task.s(1, x=2)``: a call that isn't sent yet. `chain`, `group` and `chord` are signatures,
    too: each can be sent, or be a part of another one.

    `set`, `link`, `stamp` and assignments change the value itself, as in Celery; `clone`,
    `replace` and ``|`` make another one.
    """

    task = _Item[str]()
    args = _Item[Sequence[Any]]()
    kwargs = _Item[dict[str, Any]]()
    #: Options of `jobs.message.call.Send`.
    options = _Item[dict[str, Any]]()
    #: ``task.si(…)``: it gets neither the result of a call before it nor arguments when it is sent.
    immutable = _Item[bool]()
    #: None, or the name of the kind of a composition.
    subtask_type = _Item[str | None]()

    def __init__(
        self,
        task: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        immutable: bool = False,
        *,
        subtask_type: str | None = None,
    ) -> None:
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options=_kept(options or {}),
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> Any:
        """The value of a JSON form: see `signature`."""
        return signature(form)

    def __reduce__(self) -> Any:
        return signature, (dict(self),)

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

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """The text of the call with these arguments in front of its own."""
        return repr(self.clone(args, kwargs))

    @property
    def name(self) -> str:
        """The name of its task."""
        return self.task

    @property
    def id(self) -> str | None:
        """The id that it will have, if one was chosen: by `freeze`, or as its ``task_id``."""
        return self.options.get("task_id")

    @property
    def type(self) -> Any:
        """Its `jobs.Task`. Raises `UnknownTask`."""
        return registry.find(self.task)

    # ------------------------------------------------------------------ changing it

    def _starts(self) -> list[Signature]:
        """The parts that are given what it is sent with."""
        return []

    def _parts(self) -> list[Signature]:
        """All that it is composed of."""
        return []

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Add options to it, and return it. ``link`` and ``link_error`` are one call or several.
        ``immutable``: whether the calls that start it take no arguments but their own."""
        if immutable is not None:
            self.set_immutable(immutable)
        self["options"] = {**self.options, **_kept(options)}
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Whether the calls that start it take no arguments but their own."""
        self.immutable = immutable

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """A copy with these arguments in front of those of the calls that start it, and further
        keywords and options. Immutable calls keep their arguments."""
        own = dict(self.kwargs)
        if self.immutable:
            args, kwargs = (), None
        args, own = (*(args or ()), *self.args), {**own, **(kwargs or {})}
        made = Signature(self.task, args, own, self._options_with(options), self.immutable)
        made.subtask_type = self.subtask_type
        return made  # type: ignore[return-value]

    partial = clone

    def _options_with(self, further: Mapping[str, Any]) -> dict[str, Any]:
        """Its options and these, for a copy: calls that are linked to it are copied, too."""
        own = dict(self.options)
        for name in _LINKS & own.keys():
            own[name] = [maybe_signature(call, clone=True) for call in several(own[name])]
        return workflow.merged(own, further)

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """A copy with these in place of its own arguments, keywords and options; None: as here."""
        made = self.clone()
        if args is not None:
            made.args = tuple(args)
        if kwargs is not None:
            made.kwargs = dict(kwargs)
        if options is not None:
            made.options = _kept(options)
        return made

    def link(self, callback: Any) -> Any:
        """Have this call, or these, sent with its result when it has succeeded; returns them."""
        self._append("link", callback)
        return callback

    add_callback = link

    def link_error(self, errback: Any) -> Any:
        """Have this call, or these, sent with its id when it has failed; returns them."""
        self._append("link_error", errback)
        return errback

    add_errback = link_error

    def on_error(self, errback: Any) -> Self:
        """`link_error` that returns the value itself."""
        self.link_error(errback)
        return self

    def _append(self, name: str, calls: Any) -> None:
        further = several(calls)
        as_dicts(further)  # raises for anything that isn't a call
        together = several(self.options.get(name))
        together += [call for call in further if call not in together]
        self.options[name] = together

    def flatten_links(self) -> list[Any]:
        """This call, and all that are linked to it, and to those."""
        linked = [maybe_signature(call) for call in several(self.options.get("link"))]
        return [self, *(one for call in linked for one in call.flatten_links())]

    def stamp(
        self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **stamps: Any
    ) -> Self:
        """Mark all of its calls, and those linked to them, and return it: the tasks find the stamps
        in ``self.request.stamps``. A value is one or a list of them.

        ``visitor``: an object that chooses stamps for each call, a `jobs.StampingVisitor`.
        ``append_stamps``: add to values that a call has under the same names; by default they stay
        as they are, but those of a visitor are replaced.
        """
        put(self, visitor, stamps, maybe_signature, append=append_stamps)
        return self

    def freeze(self, task_id: str | None = None) -> AsyncResult[R]:
        """Choose its ids now, and return the handle that sending it will return.

        ``task_id``: of its last call. Raises `WorkflowError`, and `TypeError` for a part that isn't
        a call.
        """
        self.options["task_id"] = task_id or self.id or new_id()
        made: AsyncResult[R] = handle_of(self)  # type: ignore[assignment]
        return made

    # ------------------------------------------------------------------ its JSON form

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The JSON form. ``convert`` makes that of each part; options stay as they are."""
        return {
            **workflow.task(
                self.task, self.args, self.kwargs, self.options, immutable=self.immutable
            ),
            "subtask_type": self.subtask_type,
        }

    def as_dict(self) -> dict[str, Any]:
        """Celery's JSON form in plain types, from which `jobs.signature` makes the value again.

        Raises `WorkflowError` if it contains itself, and `TypeError` for a part that isn't a call.
        """
        return to_dict(self)

    # ------------------------------------------------------------------ composing and sending

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        return joined(self, maybe_signature(other))

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        return joined(maybe_signature(other), self)

    # Of two dicts, it would change the first.
    __ior__ = __or__

    def __invert__(self) -> R:
        """Send it, and wait for what it returns: ``~add.s(2, 2)``."""
        return self.apply_async().get()

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.CALLS))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now."""
        call = self.clone(args, kwargs)
        task: Any = registry.find(self.task)
        return task(*call.args, **call.kwargs)

    def apply(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run it here and now as a worker would; see `jobs.Task.apply`."""
        call = self.clone(args, kwargs, **options)
        task: Any = registry.find(self.task)
        return task.apply(call.args, call.kwargs, **python_options(call.options))

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """`apply_async` with no options."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send it; inside a transaction, as part of that.

        ``args`` and ``kwargs`` go in front of those of the calls that start it. Raises what
        `jobs.Task.apply_async` raises, `UnknownTask`, `WorkflowError`, and `TypeError` for
        arguments that one of its tasks doesn't take.
        """
        call = self.clone(args, kwargs, **options)
        sent: AsyncResult[R] = find(call).apply_async(
            call.args, call.kwargs, **python_options(call.options)
        )
        return sent


class _Composition(Signature[R]):
    @property
    def tasks(self) -> list[Signature]:
        """The calls, in their order."""
        return _values(self.kwargs, "tasks")

    @tasks.setter
    def tasks(self, calls: Iterable[Any]) -> None:
        self.kwargs["tasks"] = _listed((calls,))

    def _parts(self) -> list[Signature]:
        return self.tasks

    def set_immutable(self, immutable: bool) -> None:
        for call in self._starts():
            call.set_immutable(immutable)

    def freeze(self, task_id: str | None = None) -> Any:
        frozen = freeze(self.as_dict(), {"task_id": task_id} if task_id else {})
        made = signature(frozen)
        # A chain of one call is frozen as that call.
        whole = made if type(made) is type(self) else chain._of([made])
        self["kwargs"], self["options"] = whole.kwargs, whole.options
        return handle_of(frozen)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send it with these arguments, as in Celery."""
        return self.apply_async(args, **options)

    def apply(self, *_: Any, **__: Any) -> NoReturn:
        raise WorkflowError(
            "Only a call of one task can be run here and now; a composition is sent, and get() "
            "waits for its end. In a test, jobs.testing.run_jobs() runs what was sent."
        )

    # What follows gives Any, since the handle depends on how it ends.

    if TYPE_CHECKING:

        def delay(self, *args: Any, **kwargs: Any) -> Any: ...

        def __invert__(self) -> Any: ...

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send it: see `Signature.apply_async`."""
        return send(to_dict(self), args or (), kwargs or {}, plain_options(options))


class chain(_Composition[R]):
    """Calls one after the other, each given the result of the one before it:
    ``chain(fetch.s(url), parse.s(), store.s())``, or ``a | b | c``.

    Inside a transaction, all of it is sent as part of that. When a call fails, those after it end
    as it did. Retry it, in the admin or by `jobs.control.retry`, and the chain goes on.

    Its handle is that of the last call, whose ``parent`` is that of the call before. Options apply
    to the first call, except ``link`` and ``task_id`` (the last call) and ``link_error`` (each of
    them).

    A group and the call after it become a `chord`. A group of one call counts as that call: the
    next one gets its result, not a list.
    """

    def __new__(cls, *calls: Any, **options: Any) -> Any:
        """Of calls, or of one iterable of them."""
        first, *rest = _listed(calls) or [cls._of([])]
        if not rest or (isinstance(first, group) and len(first) == 1):
            first = cls._of([first]) if calls else first  # in which a group of one is its call
        made = functools.reduce(joined, rest, first)
        return made.set(**options) if options else made

    def __init__(self, *calls: Any, **options: Any) -> None:
        """`__new__` has made it."""

    @classmethod
    def _of(cls, calls: Iterable[Any], options: Mapping[str, Any] | None = None) -> chain:
        made: chain = dict.__new__(cls)
        kwargs = {"tasks": list(calls)}
        Signature.__init__(made, "celery.chain", (), kwargs, options, subtask_type="chain")
        return made

    def _starts(self) -> list[Signature]:
        return self.tasks[:1]

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        calls = [call.clone(args, kwargs) for call in self._starts()]
        calls += [call.clone() for call in self.tasks[1:]]
        return self._of(calls, self._options_with(options))  # type: ignore[return-value]

    def unchain_tasks(self) -> list[Signature]:
        """Copies of its calls, as they would be sent: with the errbacks of the chain, and the last
        with its callbacks."""
        form = workflow.over_chain(self.as_dict())
        return [signature(call) for call in workflow.parts(form)]

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks)) or "chain()"

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.chain(map(convert, self.tasks), self.options)


class group(_Composition[R]):
    """Calls beside each other: ``group(a.s(1), a.s(2))``, or of one iterable of calls. The members
    of a group among them become members of this one.

    Its handle is a `GroupResult`. Options apply to each call, except ``task_id``, which is the
    group's own. It can't have ``link``: for a call after all of them write a chord, ``group |
    call``.
    """

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **options: Any) -> GroupResult: ...

        def delay(self, *args: Any, **kwargs: Any) -> GroupResult: ...  # type: ignore[override]

        def apply_async(  # type: ignore[override]
            self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
        ) -> GroupResult: ...

        def __invert__(self) -> list[Any]: ...  # type: ignore[override]

    def __init__(self, *calls: Any, **options: Any) -> None:
        kwargs = {"tasks": _listed(calls)}
        super().__init__("celery.group", (), kwargs, options, subtask_type="group")

    def _starts(self) -> list[Signature]:
        return self.tasks

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        calls = [call.clone(args, kwargs) for call in self.tasks]
        return group(calls, **self._options_with(options))  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"group([{', '.join(map(repr, self.tasks))}])"

    def link(self, callback: Any) -> NoReturn:
        raise WorkflowError(
            "A group has no one end that a callback could follow; write group | call, which is "
            "sent when all of them have succeeded, or link each of the calls."
        )

    add_callback = link

    def group(self) -> Self:
        """Itself, for code written for Celery, whose ``task.chunks(…)`` is no group yet."""
        return self

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Have its calls start one after the other, and return it: the first after ``start``
        seconds, each ``step`` seconds after the one before, none later than ``stop``."""
        last = math.inf if stop is None else stop
        for n, call in enumerate(self.tasks):
            call.set(countdown=min(start + n * step, last))
        return self

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.group(map(convert, self.tasks), self.options)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Signature]:  # type: ignore[override]
        return iter(self.tasks)

    if not TYPE_CHECKING:  # a dict's key is text

        def __getitem__(self, key: str | SupportsIndex) -> Any:
            return super().__getitem__(key) if isinstance(key, str) else self.tasks[key]


class chord(_Composition[R]):
    """A header of calls beside each other, and a body: when all have succeeded, it is called with
    the list of their results, in the header's order. ``chord([a.s(1), a.s(2)], total.s())``;
    ``chord(header)(body)`` sends it, as in Celery.

    If one fails or is revoked, the body ends as FAILURE (`ChordError`) once the others have ended
    too. Retry that call, and the chord goes on.

    Its handle is that of the body, whose ``parent`` is the header's `GroupResult`. ``task_id``,
    ``link`` and ``link_error`` are for the body, ``countdown`` and ``eta`` for the header, other
    options for both.
    """

    def __init__(
        self,
        header: Signature | Iterable[Any] | Mapping[str, Any],
        body: Signature | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        made = maybe_signature(header) if isinstance(header, Mapping) else header
        kwargs: dict[str, Any] = {
            "header": made if isinstance(made, group) else group(made),
            "body": None if body is None else _call(body),
            "kwargs": {},
        }
        super().__init__("celery.chord", (), kwargs, options, subtask_type="chord")

    @property
    def header(self) -> group:
        """The calls beside each other."""
        found = self.kwargs["header"]
        if not isinstance(found, group):  # assigned, or in the form of another program
            found = self.kwargs["header"] = group(workflow.parts(workflow.header(self)))
        return found

    @header.setter
    def header(self, calls: Any) -> None:
        self.kwargs["header"] = calls if isinstance(calls, group) else group(calls)

    @property
    def tasks(self) -> list[Signature]:
        """The calls of the header."""
        return self.header.tasks

    @tasks.setter
    def tasks(self, calls: Iterable[Any]) -> None:
        self.header = group(calls)

    @property
    def body(self) -> Signature | None:
        """The call that gets the results."""
        found: Signature | None = maybe_signature(self.kwargs["body"])
        return found

    @body.setter
    def body(self, call: Any) -> None:
        self.kwargs["body"] = None if call is None else _call(call)

    def _parts(self) -> list[Signature]:
        return [self.header, *([self.body] if self.body is not None else [])]

    def _starts(self) -> list[Signature]:
        return [self.header]

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        body = None if self.body is None else self.body.clone()
        header = self.header.clone(args, kwargs)
        return chord(header, body, **self._options_with(options))  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"chord([{', '.join(map(repr, self.header))}], {self.body!r})"

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        if self.body is None:
            raise WorkflowError("A chord has no body; write chord(header, body).")
        return workflow.chord(convert(self.header), convert(self.body), self.options)

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body if it has none: ``chord(header)(body)``, as in Celery."""
        return (self if body is None else chord(self.header, body, **self.options)).apply_async(
            **options
        )


# ------------------------------------------------------------------------- JSON forms


def to_dict(call: Any, inside: tuple[int, ...] = ()) -> dict[str, Any]:
    """The JSON form of a call, which may be a value or a JSON form already.

    ``inside``: the `id` of everything it is a part of. Raises what `Signature.as_dict` raises.
    """
    if id(call) in inside:
        name = str(call.get("task")) if isinstance(call, Mapping) else type(call).__name__
        raise WorkflowError(f"{name} contains itself; take it out of its own parts.")

    def convert(part: Any) -> dict[str, Any]:
        return to_dict(part, (*inside, id(call)))

    try:
        if isinstance(call, Signature):
            made = call.form(convert)
        elif isinstance(call, Mapping) and isinstance(call.get("task"), str):
            made = _from_dict(call, convert)
        else:
            # Not repr() of anything: a mistaken call may hold secrets.
            what = repr(call) if callable(call) or call is None else f"A {type(call).__name__}"
            raise TypeError(f"{what} is no call; write task.s(…)")
    except RecursionError:
        raise WorkflowError("The calls are nested too deeply.") from None
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
    if isinstance(calls, Mapping | str) or not isinstance(calls, Iterable):
        return [calls]
    return list(calls)


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as a call keeps them: with lists in place of iterators that could be read only
    once, and seconds in place of spans, which have no form in JSON."""
    kept = dict(options)
    for name, value in options.items():
        if isinstance(value, dt.timedelta):
            kept[name] = value.total_seconds()
        elif (
            name in _LINKS
            and isinstance(value, Iterable)
            and not isinstance(value, Mapping | str | list | tuple)
        ):
            kept[name] = list(value)
    return kept


#: The types of the items in a JSON form, which anybody may have written.
_ITEMS: Mapping[str, Any] = {
    "args": list | tuple,
    "kwargs": Mapping,
    "options": Mapping,
    "subtask_type": str,
}


def _from_dict(call: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    _check_items(call, _ITEMS)
    try:
        what = workflow.kind(call)
        options = workflow.options(call)
        _check_items(options, {"chain": list | tuple})
        if behind := options.get("chain"):
            options = {**options, "chain": [convert(part) for part in behind]}
        if what == "task":
            return {**call, "options": options}
        if what == "chord":
            _check_items(call.get("kwargs") or {}, {"header": list | tuple | Mapping})
            header = workflow.header(call)
            parts = _parts_of(header, convert)
            body = convert(workflow.body(call))
            return workflow.chord(workflow.group(parts, workflow.options(header)), body, options)
    except ValueError as error:
        raise WorkflowError(str(error)) from None
    made = workflow.chain if what == "chain" else workflow.group
    return made(_parts_of(call, convert), options)


def _parts_of(call: Mapping[str, Any], convert: Callable[[Any], Any]) -> list[Any]:
    _check_items(call, _ITEMS)
    _check_items(call.get("kwargs") or {}, {"tasks": list | tuple})
    return [convert(part) for part in workflow.parts(call)]


def _check_items(items: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raise `WorkflowError` for an item of another type. Not for None: Celery writes that."""
    for name, kind in kinds.items():
        value = items.get(name)
        if value is not None and not isinstance(value, kind):
            raise WorkflowError(
                f"This is no JSON form of a call: its {name!r} is a {type(value).__name__}."
            )


def _plain(value: Any, convert: Callable[[Any], Any]) -> Any:
    """The value in its JSON form, as Celery writes it."""
    if isinstance(value, dt.datetime):
        return aware(value).isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping) and "subtask_type" in value:
        return convert(value)
    if isinstance(value, list | tuple | Set | Iterator):
        return [_plain(one, convert) for one in value]
    return value


#: Characters of one argument in the text of a call.
_SHOWN = 100


def _spare(task: Any, args: int) -> int:
    """How far to the right these positional arguments may still move: how many others may be put
    in front of them."""
    most = max(int(place) + 1 for place in ("-1", *task.sensitive) if place.lstrip("-").isdigit())
    return max(0, (most if task._arity is None else task._arity.stop - 1) - args)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


# ------------------------------------------------------------------------- making them


def joined(first: Signature, then: Signature) -> Signature:
    """``first | then``. A group and what follows it make a chord; what follows a chord follows its
    body. In a chain, a group of one call is that call."""
    if isinstance(first, group):
        return chord(first, then)
    if isinstance(first, chord) and first.body is not None:
        return chord(first.header, joined(first.body, then), **first.options)
    if isinstance(first, chain) and first.tasks and not first.options:
        *calls, last = first.tasks
        opens = isinstance(last, chord) or (isinstance(last, group) and len(last) != 1)
        behind = joined(last, then) if opens else None
        return chain._of((*calls, behind) if behind else (*first.tasks, *_calls(then)))
    if isinstance(first, chain) and not first.tasks:
        return chain._of(_calls(then), first.options)
    return chain._of((first, *_calls(then)))


def _calls(call: Signature) -> list[Signature]:
    plain = isinstance(call, chain) and not call.options
    return call.tasks if plain else [call]  # type: ignore[attr-defined]


def signature(
    task: str | Mapping[str, Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    options: Mapping[str, Any] | None = None,
    app: object = None,
    **more: Any,
) -> Any:
    """A call, by the name of its task or from a JSON form (`Signature.as_dict`); that may also be a
    chain, a group or a chord. A `Signature` is copied. ``app`` is Celery's, and not read.

    Raises `WorkflowError` for a dict that isn't the JSON form of a call, and `TypeError` where a
    call should be and something else is.
    """
    options = {**(options or {}), **more}
    if isinstance(task, str):
        return Signature(task, args, kwargs, options, immutable)
    form = to_dict(task)
    options = {**form["options"], **options}
    what = workflow.kind(form)
    if what == "task":
        made = Signature(form["task"], form.get("args") or (), form.get("kwargs"), options)
        made.immutable, made.subtask_type = bool(form.get("immutable")), form.get("subtask_type")
        return made
    if what == "chord":
        header, body = workflow.header(form), workflow.body(form)
        return chord(signature(header), signature(body), **options)
    parts = list(map(signature, workflow.parts(form)))
    return chain._of(parts, options) if what == "chain" else group(parts, **options)


#: Celery's former name.
subtask = signature


def maybe_signature(
    call: Mapping[str, Any] | None, app: object = None, *, clone: bool = False
) -> Any:
    """The call of a JSON form; a signature (a copy of it, with ``clone``) and None are returned as
    they are. ``app`` is Celery's, and not read."""
    if call is None:
        return None
    if isinstance(call, Signature):
        return call.clone() if clone else call
    return signature(call)


def xmap(task: Signature | Callable[..., Any], it: Iterable[Any]) -> Signature:
    """One call that runs a task (or a signature of one) for each item in turn, and returns the list
    of results. It goes to this task's queue, and keeps no result if the task's calls keep none.

    Raises `TypeError` for a task that is ``async def``.
    """
    return _over("celery.map", task, it)


def xstarmap(task: Signature | Callable[..., Any], it: Iterable[Sequence[Any]]) -> Signature:
    """`xmap`, where each item is a tuple of all positional arguments."""
    return _over("celery.starmap", task, it)


def chunks(task: Signature | Callable[..., Any], it: Iterable[Sequence[Any]], n: int) -> group:
    """A group of `xstarmap` calls, each for ``n`` items."""
    check_whole("the size of chunks()", n, 1, 2**31)
    items = list(it)
    return group([xstarmap(task, items[at : at + n]) for at in range(0, len(items), n)])


def _over(name: str, task: Signature | Callable[..., Any], items: Iterable[Any]) -> Signature:
    known: Any = registry.tasks.get(task.task) if isinstance(task, Signature) else task
    call = task if isinstance(task, Signature) else known.s()
    options: dict[str, Any] = {}
    if known is not None:
        if known.is_async:
            raise TypeError(
                f"Task {known.name!r} is 'async def'; send a group of its calls instead."
            )
        if known.ignore_result:
            options["ignore_result"] = True
        if known.expires is not None:
            options["expires"] = known.expires
    kwargs = {"task": call.as_dict(), "it": list(items)}
    return Signature(name, (), kwargs, options, immutable=True)


def _listed(calls: Any) -> list[Signature]:
    """The calls of ``group(a, b)`` or ``group([a, b])``."""
    if len(calls) == 1 and not isinstance(calls[0], Mapping):
        (calls,) = calls
    return list(map(_call, calls))


def _values(kwargs: dict[str, Any], name: str) -> list[Signature]:
    """The calls of this item, as values: it may have been assigned in another form."""
    found = kwargs.get(name)
    if type(found) is not list or not all(isinstance(call, Signature) for call in found):
        found = kwargs[name] = list(map(_call, found or ()))
    return found


def _call(call: Any) -> Signature:
    if isinstance(call, Signature):
        return call
    if isinstance(call, Mapping):
        made: Signature = signature(call)
        return made
    to_dict(call)  # which raises
    raise AssertionError("no call")
