"""From a call to its message: its options understood, its arguments checked, its queue found."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from jobs import (
    celery_names,
    conf,
    known,
    routing,
    values,
)
from jobs.canvas import as_dicts, check_linked
from jobs.message import Message, encode, new_id
from jobs.parameters import shown
from jobs.request import current
from jobs.routing import Address, Plan, Route
from jobs.sending import OPTIONS, Send, SendOptions, When, end

_PAGE = "docs/reference/tasks.md has all of them"

#: No keyword arguments.
NONE: Mapping[str, Any] = {}

#: A send without options.
_PLAINLY = Send()


class Calling:
    """The part of `jobs.Task` that makes messages of calls."""

    name: str
    route: Route
    ignore_result: bool
    expires: When | None
    sensitive: frozenset[str]
    _signature: inspect.Signature
    #: How many positional arguments do alone; None: to be asked each time.
    _arity: range | None
    #: Where calls go that name no queue, as long as the router is the same.
    _plan: Plan | None = None

    def message(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        **options: Unpack[SendOptions],
    ) -> Message:
        """The message of a call, checked and not sent."""
        send = self._send(options)
        return self._message(args, kwargs, self._shared(send), send)

    def _message(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        shared: Message,
        send: Send,
    ) -> Message:
        self.check_arguments(args, kwargs)
        # What `copy.copy` does, after a search for it that takes longer.
        sent: Message = shared.__copy__()  # type: ignore[attr-defined]
        sent.id = send.task_id or new_id()
        sent.args = list(args)
        sent.kwargs = dict(kwargs) if kwargs else {}
        if not sent.queue:
            self._ask(sent, send)
        return sent

    def _send(self, options: Mapping[str, Any]) -> Send:
        if not options:
            return _PLAINLY
        try:
            if not options.keys() <= OPTIONS:
                options = self._without_celerys(options)
            return Send(**options)
        except (TypeError, ValueError) as error:
            told = values.sentence(error)
            raise type(error)(f"Task {self.name!r} can't be sent: {told}") from None

    def _without_celerys(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        left = celery_names.left_of(options, celery_names.CALL)
        for name in left:
            if name not in OPTIONS:
                near = conf.nearest(name, [*OPTIONS, *celery_names.CALL])
                raise TypeError(f"{name!r} is no option of a call.{near} {_PAGE}")
        return left

    def _shared(self, send: Send) -> Message:
        """What all messages of one bulk have in common; a copy is several times as quick to make
        as a new message."""
        eta = send.due()
        expires = self.expires if send.expires is None else send.expires
        ignored = self.ignore_result if send.ignore_result is None else send.ignore_result
        running = current.get()
        address, priority = self._address(send)
        shared = Message(
            task=self.name,
            id="",
            queue=address.queues[0] if address else "",
            priority=priority if send.priority is None else send.priority,
            eta=eta,
            expires=None if expires is None else end(expires),
            ignore_result=ignored,
            timelimit=(send.time_limit, send.soft_time_limit),
            own_headers=dict(send.headers) if send.headers else {},
            embed=_embed(send),
            group=send.group_id,
            group_index=send.group_index,
            sensitive=self.sensitive,
            parent_id=running and running[0].id,
            root_id=running and (running[0].root_id or running[0].id),
        )
        if address and (address.exchange or address.routing_key != shared.queue):
            _put(shared, address)
        return shared

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise `TypeError` when the function can't be called with these."""
        if type(args) is not tuple or kwargs:
            self._check_kinds(args, kwargs)
        if not kwargs and self._arity is not None and len(args) in self._arity:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"Task {self.name}{shown(self._signature)} {error}.") from None

    def _check_kinds(self, args: Any, kwargs: Any) -> None:
        if isinstance(args, str | bytes) or not isinstance(args, Sequence):
            raise TypeError(
                f"Task {self.name!r}: args must be a tuple or a list, not {values.shown(args)}."
            )
        if not isinstance(kwargs, Mapping):
            raise TypeError(
                f"Task {self.name!r}: kwargs must be a dict, not {values.shown(kwargs)}."
            )

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise for those with which it can't be sent what sending it would: a call that follows
        another is sent by a worker, where nobody could be told."""
        send = self._send(options)
        if send.queue:
            named = Route(send.queue, send.exchange or "", send.routing_key or "")
            routing.get().lead(self.name, named)
        else:
            self._address(send)
        if send.headers:
            encode(Message(task=self.name, id="", queue="", own_headers=dict(send.headers)))

    def _address(self, send: Send) -> tuple[Address | None, int]:
        """Where a call goes, None when functions are to be asked with its arguments; and its
        priority if it names none."""
        router, plan = routing.get(), self._plan
        if plan is None or plan.router is not router:
            plan = router.plan(self)
            if self.name in known.MAPS:  # whose calls go where the task goes that they name
                plan = plan._replace(asks=True, address=None, priority=0)
            self._plan = plan
        address = plan.address
        if address is None or send.queue or send.exchange or send.routing_key:
            named = Route(send.queue or "", send.exchange or "", send.routing_key or "")
            address = None if plan.asks else router.lead(self.name, named.over(plan.route))
        return address, plan.priority

    def _ask(self, sent: Message, send: Send) -> None:
        """Have the functions of JOBS["TASK_ROUTES"] say where a call goes."""
        given = {name: getattr(send, name) for name in OPTIONS}
        options = {name: value for name, value in given.items() if value is not None}
        name: str = self.name
        task: Any = self
        if name in known.MAPS:
            name, task = known.routed_as(name, sent.kwargs)
        address, sent.priority = routing.get().find(name, sent.args, sent.kwargs, options, task)
        _put(sent, address)


def _put(sent: Message, address: Address) -> None:
    for name, value in address.fields().items():
        setattr(sent, name, value)


def _embed(send: Send) -> dict[str, Any]:
    """What follows the call, in the form of its message."""
    if not (send.link or send.link_error or send.chain or send.chord):
        return {}
    link = as_dicts(send.link) if send.link else None
    link_error = as_dicts(send.link_error) if send.link_error else None
    check_linked({"link": link, "link_error": link_error})
    return {
        "callbacks": link,
        "errbacks": link_error,
        "chain": list(send.chain) if send.chain else None,
        "chord": send.chord,
    }
