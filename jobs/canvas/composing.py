"""Compositions of calls: one after the other, beside each other, and one when all the others have
ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from jobs import workflow
from jobs.canvas.base import Composable, linked
from jobs.canvas.checking import freeze
from jobs.exceptions import WorkflowError


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
