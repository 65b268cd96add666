"""The call that is running, as its task sees it."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from jobs import celery_names
from jobs.message import Message


@dataclass(frozen=True, slots=True)
class Request:
    """The call that is running: ``self.request`` in a task with ``bind=True``."""

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

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.REQUEST))


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
    )


#: Set by the worker around each call.
current: contextvars.ContextVar[tuple[Message, str] | None] = contextvars.ContextVar(
    "jobs.current", default=None
)
