"""The call of one task that isn't sent yet: what is sent, and how, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs import known, workflow
from jobs.canvas.base import Composable
from jobs.canvas.checking import python_options
from jobs.canvas.composing import joined
from jobs.message import new_id
from jobs.results import AsyncResult


@dataclass(frozen=True, slots=True)
class Signature(Composable):
    """``task.s(1, x=2)``: the task's name, its arguments, and options of `jobs.sending.Send`."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: ``task.si(…)``: it takes no result of a task before it.
    immutable: bool = False

    def set(self, **options: Any) -> Signature:
        """The same call with these options besides."""
        return replace(self, options={**self.options, **options})

    def clone(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Signature:
        """The same call with these arguments in front of its own, and these keywords besides."""
        return replace(self, args=(*args, *self.args), kwargs={**self.kwargs, **(kwargs or {})})

    def freeze(self, task_id: str | None = None) -> Signature:
        """The same call with an id, by which its result can be asked for before it is sent."""
        return self.set(task_id=task_id or self.options.get("task_id") or new_id())

    def __or__(self, other: Composable) -> Composable:
        return joined(self, other)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now."""
        task: Any = known.find(self.task)
        return task(*args, *self.args, **{**self.kwargs, **kwargs})

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """Send it, with these arguments in front of its own; see `jobs.Task.apply_async`."""
        call = self.clone(args, kwargs).set(**options)
        sent: AsyncResult[Any] = known.find(self.task).apply_async(
            call.args, call.kwargs, **python_options(call.options)
        )
        return sent

    def form(self, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return workflow.task(
            self.task, self.args, self.kwargs, self.options, immutable=self.immutable
        )
