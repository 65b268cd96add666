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

    Of a task that was called directly, all that a worker would know is None, as in Celery.
    """

    id: str
    #: How many attempts came before this one.
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
    #: Some worker has held the message before.
    redelivered: bool = False
    #: The group that it is a member of.
    group: str | None = None
    group_index: int | None = None
    eta: dt.datetime | None = None
    expires: dt.datetime | None = None
    #: Hard and soft, in seconds, as its caller gave them.
    timelimit: tuple[float | None, float | None] = (None, None)
    #: What it was called with; None: as its task says.
    ignore_result: bool | None = None
    #: It was not sent: the function was called.
    called_directly: bool = False
    #: Never: nothing is run in the place where it is sent.
    is_eager: bool = False

    @property
    def hostname(self) -> str:
        """Celery's name for `worker`."""
        return self.worker

    @property
    def correlation_id(self) -> str:
        """Celery's other name for `id`."""
        return self.id

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.REQUEST))


def direct(args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None) -> Request:
    """That of a task which was called directly, with these arguments, or isn't running at all."""
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
        redelivered=sent.redelivered,
        group=sent.group,
        group_index=sent.group_index,
        eta=sent.eta,
        expires=sent.expires,
        timelimit=sent.timelimit,
        ignore_result=sent.ignore_result,
    )


#: Set by the worker around each call.
current: contextvars.ContextVar[tuple[Message, str] | None] = contextvars.ContextVar(
    "jobs.current", default=None
)

#: Whether this process is a worker's own: a thread in which no call is known was started by a task.
in_worker = False

#: The direct calls of tasks with ``bind=True`` that are under way, the innermost last: each task's
#: name, and its request.
direct_calls: contextvars.ContextVar[tuple[tuple[str, Request], ...]] = contextvars.ContextVar(
    "jobs.direct_calls", default=()
)

#: What `current` was when its task was entered: a further call of the same task is a direct one.
entered: contextvars.ContextVar[tuple[Message, str] | None] = contextvars.ContextVar(
    "jobs.entered", default=None
)


class Ended(NamedTuple):
    """How a call says that it has ended: kept if it raises `Ignore`, as in Celery."""

    state: str
    meta: Any


#: Task id → what the call that runs here has last said of its own outcome: the `Retry` that
#: `Task.retry` gave it with ``throw=False``, what was raised since no attempt was left, or `Ended`.
said: dict[str, BaseException | Ended] = {}
