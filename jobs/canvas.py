"""Calls that aren't sent yet, and chains of them: what is sent, and how, as values.

Their JSON forms are Celery's, as in the ``embed`` of a message
(https://docs.celeryq.dev/en/stable/userguide/canvas.html).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs import known
from jobs.message import new_id
from jobs.results import AsyncResult


@dataclass(frozen=True, slots=True)
class Signature:
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

    def __or__(self, other: Signature | Chain) -> Chain:
        return Chain((self,)) | other

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
            call.args, call.kwargs, **call.options
        )
        return sent

    def check(self, *, follows: bool) -> None:
        """``follows``: a task before it gives it its result.

        Raises `UnknownTask`, or `TypeError` for arguments that the task doesn't take.
        """
        given = (None, *self.args) if follows and not self.immutable else self.args
        known.find(self.task).check_arguments(given, self.kwargs)

    def as_dict(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "args": list(self.args),
            "kwargs": dict(self.kwargs),
            "options": {name: _plain(value) for name, value in self.options.items()},
            "subtask_type": None,
            "immutable": self.immutable,
        }


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls one after the other, each given the result of the one before it.

    Sent inside a transaction, all of it is part of that. When one fails, those after it end as that
    one did; tried again from the admin, or by `jobs.control.retry`, the chain goes on.
    """

    tasks: tuple[Signature, ...]

    def __or__(self, other: Signature | Chain) -> Chain:
        return Chain((*self.tasks, *(other.tasks if isinstance(other, Chain) else (other,))))

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send it; the handle of its last call, whose ``parent`` is that of the one before.

        ``args``, ``kwargs`` and ``options`` are for the first call, ``link`` and ``task_id`` for
        the last, ``link_error`` for each: see `jobs.Task.apply_async`, also for what is raised.
        """
        calls = [call.freeze() for call in self.tasks]
        calls[-1] = calls[-1].freeze(task_id)
        if link is not None:
            calls[-1] = calls[-1].set(link=link)
        if link_error is not None:
            calls = [call.set(link_error=link_error) for call in calls]
        first, *rest = calls
        for call in rest:
            call.check(follows=True)
        handle = first.apply_async(
            args, kwargs, chain=[call.as_dict() for call in reversed(rest)], **options
        )
        for call in rest:
            handle = AsyncResult(call.options["task_id"], parent=handle)
        return handle


def chain(*calls: Signature | Chain) -> Chain:
    """Calls one after the other: ``chain(fetch.s(url), parse.s(), store.s())``, or ``a | b | c``.

    Raises `ValueError` for a chain of nothing.
    """
    if not calls:
        raise ValueError("a chain needs a call at least: chain(first.s(…), second.s(…))")
    made = Chain(())
    for call in calls:
        made = made | call
    return made


def signature(
    task: str | Mapping[str, Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    **options: Any,
) -> Signature:
    """The call of a task by its name, or of its JSON form (`Signature.as_dict`)."""
    if isinstance(task, str):
        return Signature(task, tuple(args), dict(kwargs or {}), options, immutable)
    return Signature(
        task["task"],
        tuple(task.get("args") or ()),
        dict(task.get("kwargs") or {}),
        {**(task.get("options") or {}), **options},
        bool(task.get("immutable")),
    )


def as_dicts(calls: Any) -> list[dict[str, Any]]:
    """The JSON forms of what ``link`` and ``link_error`` are given: one call or several.

    Raises `TypeError` for what is no call.
    """
    several = calls if isinstance(calls, list | tuple) else [calls]
    return [_as_dict(call) for call in several]


def _as_dict(call: Any) -> dict[str, Any]:
    if isinstance(call, Signature):
        return call.as_dict()
    if isinstance(call, Mapping) and isinstance(call.get("task"), str):
        return dict(call)
    raise TypeError(f"{call!r} is no call; write task.s(…)")


def _plain(value: Any) -> Any:
    """As JSON and Celery have it."""
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Signature):
        return value.as_dict()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
