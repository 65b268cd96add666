"""The call that is running, as its task sees it."""

from __future__ import annotations

import contextvars
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    NoReturn,
)

from jobs.message import Message, celery_names
from jobs.message.call import protocol_headers, protocol_properties


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
    #: Whether JOBS["ALWAYS_EAGER"] or `Task.apply` runs it.
    is_eager: bool = False
    #: The call's message; None in a task that is called directly.
    message: Message | None = field(default=None, repr=False, compare=False)

    # Celery's other names, which few tasks ask for: they are read when somebody does.

    @property
    def hostname(self) -> str:
        """Celery's name for `worker`."""
        return self.worker

    @property
    def correlation_id(self) -> str:
        """Celery's other name for `id`."""
        return self.id

    @property
    def task(self) -> str | None:
        """The task's name."""
        return None if self.message is None else self.message.task

    @property
    def time_limit(self) -> float | None:
        """The hard one of `timelimit`."""
        return self.timelimit and self.timelimit[0]

    @property
    def soft_time_limit(self) -> float | None:
        """The soft one of `timelimit`."""
        return self.timelimit and self.timelimit[1]

    @property
    def delivery_info(self) -> dict[str, Any] | None:
        """Where the message was sent: ``exchange`` (empty: to a queue), ``routing_key`` (then the
        queue), ``priority``, ``redelivered``; and ``is_eager`` if no worker runs it."""
        if self.message is None:
            return None
        if self.is_eager:
            return {
                "is_eager": True,
                "exchange": None,
                "routing_key": None,
                "priority": self.message.priority,
                "redelivered": False,
            }
        sent = protocol_properties(self.message).get("delivery_info")
        if not isinstance(sent, dict):  # a foreign message may have anything
            sent = {}
        return {
            "exchange": sent.get("exchange") or "",
            "routing_key": sent.get("routing_key") or self.queue,
            "priority": self.message.priority,
            "redelivered": self.redelivered,
        }

    @property
    def properties(self) -> dict[str, Any] | None:
        """The message's properties: ``correlation_id``, ``reply_to``, ``delivery_mode`` and so
        on."""
        return None if self.message is None else protocol_properties(self.message)

    @property
    def reply_to(self) -> str | None:
        """Where a Celery client waits for the result; empty or None otherwise."""
        found: str = self._property("reply_to")
        return found

    @property
    def origin(self) -> str | None:
        """Who sent it: ``gen<pid>@<host>``."""
        found: str = self._header("origin")
        return found

    @property
    def shadow(self) -> str | None:
        """The name that a Celery client wants to be shown."""
        found: str | None = self._header("shadow")
        return found

    @property
    def lang(self) -> str | None:
        found: str | None = self._header("lang")
        return found

    @property
    def argsrepr(self) -> str | None:
        """The arguments as they are shown; what is sensitive is not in it."""
        found: str | None = self._header("argsrepr")
        return found

    @property
    def kwargsrepr(self) -> str | None:
        found: str | None = self._header("kwargsrepr")
        return found

    @property
    def stamps(self) -> dict[str, Any] | None:
        """Its stamps, by their names: see `jobs.Signature.stamp`."""
        if self.message is None:
            return None
        found: dict[str, Any] = self._header("stamps") or {}
        return found

    @property
    def stamped_headers(self) -> list[str] | None:
        """The names of its stamps."""
        found: list[str] | None = self._header("stamped_headers")
        return found

    @property
    def replaced_task_nesting(self) -> int:
        """How often a call was replaced by `Task.replace` until this one took its place."""
        return 0 if self.message is None else self.message.replaced

    @property
    def callbacks(self) -> list[dict[str, Any]] | None:
        """The calls that are sent when it has succeeded, in their JSON form."""
        found: list[dict[str, Any]] | None = self._embedded("callbacks")
        return found

    @property
    def errbacks(self) -> list[dict[str, Any]] | None:
        """The calls that are sent when it has failed, in their JSON form."""
        found: list[dict[str, Any]] | None = self._embedded("errbacks")
        return found

    @property
    def chain(self) -> list[dict[str, Any]] | None:
        """The rest of its chain, the next call last, in their JSON form."""
        found = self._embedded("chain")
        return None if found is None else list(found)

    @property
    def chord(self) -> dict[str, Any] | None:
        """The body of the chord that it is a member of, in its JSON form."""
        found: dict[str, Any] | None = self._embedded("chord")
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or this if there is none of the name."""
        return getattr(self, name, default)

    def _header(self, name: str) -> Any:
        return None if self.message is None else protocol_headers(self.message).get(name)

    def _property(self, name: str) -> Any:
        return None if self.message is None else protocol_properties(self.message).get(name)

    def _embedded(self, name: str) -> Any:
        return None if self.message is None else self.message.embed.get(name) or None

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
        is_eager=eager.get(),
        message=sent,
    )


#: Whether calls that run here are run by JOBS["ALWAYS_EAGER"] or `Task.apply`.
eager: contextvars.ContextVar[bool] = contextvars.ContextVar("jobs.eager", default=False)

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
