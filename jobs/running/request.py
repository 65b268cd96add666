"""The call that is running, as its task sees it."""

from __future__ import annotations

import contextvars
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    NoReturn,
)

from jobs.message import Message, celery_names


@dataclass(frozen=True, slots=True)
class Request:
    """The call that is running: ``self.request`` in a task with ``bind=True``.

    In a task that is called directly, what only a worker knows is None, as in Celery.
    """

    id: str
    #: How many attempts there were before this one.
    retries: int
    queue: str
    #: Name of the worker's child process.
    worker: str
    #: The caller's own headers.
    headers: Mapping[str, Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    root_id: str | None = None
    parent_id: str | None = None
    #: Whether a worker has held the message before.
    redelivered: bool = False
    #: The group that it is a member of.
    group: str | None = None
    group_index: int | None = None
    eta: dt.datetime | None = None
    expires: dt.datetime | None = None
    #: Hard and soft limit in seconds, as the caller gave them.
    timelimit: tuple[float | None, float | None] = (None, None)
    #: As the caller gave it; None: as the task says.
    ignore_result: bool | None = None
    #: A word of the caller's own, to find the call by; empty: none.
    label: str = ""
    #: Whose call it is, where the tenants of a queue take turns; empty: nobody's.
    fair: str = ""
    #: Whether the function was called directly, and no message was sent.
    called_directly: bool = False
    #: Always False, also where JOBS["ALWAYS_EAGER"] or `Task.apply` runs a call.
    is_eager: bool = False

    @property
    def hostname(self) -> str:
        """Celery's name for `worker`."""
        return self.worker

    @property
    def correlation_id(self) -> str:
        """Celery's other name for `id`."""
        return self.id

    if not TYPE_CHECKING:  # so that a type checker reports unknown attributes

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.REQUEST))


def direct(args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None) -> Request:
    """The request of a task that is called directly with these arguments, or isn't running."""
    nothing: Any = None
    return Request(
        id=nothing,
        retries=0,
        queue=nothing,
        worker=nothing,
        headers=nothing,
        args=args,  # type: ignore[arg-type]
        kwargs=kwargs,  # type: ignore[arg-type]
        timelimit=nothing,
        ignore_result=False,
        called_directly=True,
    )


def request_of(sent: Message, worker: str) -> Request:
    return Request(
        id=sent.id,
        retries=sent.retries,
        queue=sent.queue,
        worker=worker,
        headers=sent.headers,
        args=sent.args,
        kwargs=sent.kwargs,
        root_id=sent.root_id,
        parent_id=sent.parent_id,
        redelivered=sent.marks.redelivered,
        group=sent.group,
        group_index=sent.group_index,
        eta=sent.eta,
        expires=sent.expires,
        timelimit=sent.timelimit,
        ignore_result=sent.ignore_result,
        label=sent.label,
        fair=sent.fair,
    )


#: Set by the worker around each call.
current: contextvars.ContextVar[tuple[Message, str] | None] = contextvars.ContextVar(
    "jobs.current", default=None
)

#: Whether this is a worker's child process: there, a thread without a current call was started by a
#: task.
in_worker = False

#: The running direct calls of tasks with ``bind=True``, the innermost last: the task's name and its
#: request.
direct_calls: contextvars.ContextVar[tuple[tuple[str, Request], ...]] = contextvars.ContextVar(
    "jobs.direct_calls", default=()
)

#: The value of `current` whose task has been entered: another call of that task is a direct one.
entered: contextvars.ContextVar[tuple[Message, str] | None] = contextvars.ContextVar(
    "jobs.entered", default=None
)


class Ended(NamedTuple):
    """The end that a call has given itself; it counts if the call raises `Ignore`, as in Celery."""

    state: str
    meta: Any


#: Task id → what the call running here has last decided about its own outcome: the `Retry` that
#: `Task.retry` returned with ``throw=False``, the error when no attempt was left, or `Ended`.
said: dict[str, BaseException | Ended] = {}
