"""The call of one task that isn't sent yet: what is sent, and how, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs import known, workflow
from jobs.canvas.base import (
    Composable,
    linked,
)
from jobs.canvas.checking import python_options
from jobs.canvas.composing import joined
from jobs.message import (
    HIDDEN,
    new_id,
)
from jobs.results import AsyncResult

#: Characters of one argument in the text of a call.
_SHOWN = 100


@dataclass(frozen=True, slots=True, repr=False)
class Signature(Composable):
    """``task.s(1, x=2)``: the task's name, its arguments, and options of `jobs.sending.Send`."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: ``task.si(…)``: it takes no result of a task before it, nor arguments of the sending.
    immutable: bool = False

    def __repr__(self) -> str:
        """As the call is written; values of sensitive arguments are hidden."""
        task = known.tasks.get(self.task)
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
        task: Any = known.find(self.task)
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
        sent: AsyncResult[Any] = known.find(self.task).apply_async(
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
