"""How one call is sent: the options of ``apply_async``, as a value."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from django.db import connections

from jobs import conf
from jobs.conf import RetryPolicy
from jobs.conf.values import (
    check_place,
    check_priority,
    check_text,
    check_time_limit,
    check_whole,
    check_yes_or_no,
    moment,
    seconds_ahead,
)
from jobs.exceptions import shown
from jobs.timing import clock
from jobs.timing.clock import aware

#: Seconds from now, a span, or a moment.
When = float | dt.timedelta | dt.datetime


class SharedOptions(TypedDict, total=False):
    """What the calls of a bulk may have in common; `Send` has the meanings."""

    countdown: float | dt.timedelta | None
    eta: dt.datetime | None
    expires: When | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    headers: Mapping[str, Any] | None
    ignore_result: bool | None
    time_limit: float | None
    soft_time_limit: float | None
    using: str | None
    retry: bool
    retry_policy: Mapping[str, Any] | None
    link: Any
    link_error: Any


class SendOptions(SharedOptions, total=False):
    """What ``apply_async`` takes; `Send` has the meanings."""

    task_id: str | uuid.UUID | None
    chain: Sequence[Mapping[str, Any]] | None
    group_id: str | None
    group_index: int | None
    chord: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Options of a send. Raises `TypeError` or `ValueError` for those that can't be."""

    #: Seconds from now, or a timedelta; not before.
    countdown: float | None = None
    #: Not before; a naive one is in the project's time zone. Either this or ``countdown``.
    eta: dt.datetime | None = None
    #: Not after: it ends as REVOKED. Spans count from the sending, as in Celery, not from ``eta``;
    #: a naive moment is in the project's time zone.
    expires: When | None = None
    queue: str | None = None
    #: Without a queue: to the queues that are bound to it with this key. Without an exchange, the
    #: task's, or JOBS["DEFAULT_EXCHANGE"]. With a queue, that decides, and they go along in
    #: ``delivery_info``.
    exchange: str | None = None
    routing_key: str | None = None
    #: 0 (first) to 9.
    priority: int | None = None
    #: Instead of a new id: text of 1 to 255 characters, or a UUID. Sending twice under one id runs
    #: once only if the first has ended before the second starts.
    task_id: str | None = None
    #: The caller's own, for ``self.request.headers``.
    headers: Mapping[str, Any] | None = None
    ignore_result: bool | None = None
    #: Seconds, in place of the task's: see `jobs.api.options.Options`.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: Alias of the database whose transaction counts; default: the ledger's.
    using: str | None = None
    #: Calls (`jobs.Signature`), one or several, to be sent with its result when it has succeeded.
    link: Any = None
    #: Likewise, with its id when it has failed.
    link_error: Any = None
    #: JSON forms of the calls that follow it, the next one last: see `jobs.canvas.Chain`.
    chain: Sequence[Mapping[str, Any]] | None = None
    #: The group that it is a member of: see `jobs.canvas.Group`.
    group_id: str | None = None
    group_index: int | None = None
    #: JSON form of the body that follows this group: see `jobs.canvas.Chord`.
    chord: Mapping[str, Any] | None = None
    #: False: with the broker away, don't try again.
    retry: bool = True
    #: Keys of JOBS["RETRY_POLICY"] in place of the settings', for a broker that is away.
    retry_policy: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("queue", "exchange", "routing_key"):
            check_place(name, getattr(self, name))
        check_kinds(self)
        if self.countdown is not None and self.eta is not None:
            raise TypeError("countdown and eta are given; give one of them")
        if self.retry_policy is not None:
            try:
                conf.options_of(RetryPolicy, self.retry_policy)
            except (TypeError, ValueError) as error:
                raise type(error)(f"retry_policy {error}") from None
        if self.priority is not None and (
            isinstance(self.priority, bool) or self.priority not in range(10)
        ):
            raise ValueError(f"priority must be 0 (first) to 9, not {self.priority!r}")
        for name in ("time_limit", "soft_time_limit"):
            check_time_limit(name, getattr(self, name))

    def due(self) -> dt.datetime | None:
        """When it may start, if not at once."""
        if self.countdown is not None:
            return clock.now() + dt.timedelta(seconds=self.countdown)
        return self.eta and aware(self.eta)

    def policy(self) -> RetryPolicy | None:
        """For a broker that is away; None: that of the settings."""
        if not self.retry:
            return RetryPolicy(max_retries=0)
        if not self.retry_policy:
            return None
        checked = conf.options_of(RetryPolicy, self.retry_policy)
        given = {name: getattr(checked, name) for name in self.retry_policy}
        return dataclasses.replace(conf.get().retry_policy, **given)


#: Names of `Send`'s options.
OPTIONS = frozenset(field.name for field in dataclasses.fields(Send))


def end(expires: When) -> dt.datetime:
    """The moment after which a call that is sent now isn't run."""
    if isinstance(expires, dt.datetime):
        return aware(expires)
    span = expires if isinstance(expires, dt.timedelta) else dt.timedelta(seconds=expires)
    return clock.now() + span


def check_kinds(send: Send) -> None:
    """Raise `TypeError` or `ValueError` for options of the wrong kind, which would fail in a worker
    or in the database, where nobody could be told."""
    put = object.__setattr__
    if isinstance(send.task_id, uuid.UUID):
        put(send, "task_id", str(send.task_id))
    for name in ("task_id", "group_id", "queue", "exchange", "routing_key"):
        value = getattr(send, name)
        if value is not None and (value != "" or name in ("task_id", "group_id")):
            check_text(name, value)
            if type(value) is not str:  # safe text, a member of an enum: JSON takes str alone
                put(send, name, str.__str__(value))
    if send.group_index is not None:
        check_whole("group_index", send.group_index, 0, 2**31 - 1, ", or None")
    check_priority(send.priority)
    check_times(send)
    if send.ignore_result is not None:
        check_yes_or_no("ignore_result", send.ignore_result)
    check_yes_or_no("retry", send.retry)
    if send.headers is not None:
        _check_headers(send.headers)
    if send.using is not None and send.using not in connections.settings:
        raise ValueError(
            f"using must be an alias in DATABASES, not {shown(send.using)}."
            f"{conf.nearest(str(send.using), connections.settings)}"
        )
    if send.chord is not None and not isinstance(send.chord, Mapping):
        raise TypeError(f"chord must be the JSON form of a call, not {shown(send.chord)}")
    if send.chain is not None and (
        not isinstance(send.chain, list | tuple)
        or not all(isinstance(one, Mapping) for one in send.chain)
    ):
        raise TypeError(f"chain must be JSON forms of calls, not {shown(send.chain)}; write a | b")


def check_times(send: Send) -> None:
    """The same of its moments and spans."""
    if send.countdown is not None:
        object.__setattr__(send, "countdown", seconds_ahead("countdown", send.countdown))
    if send.eta is not None:
        moment("eta", send.eta)
    if isinstance(send.expires, dt.datetime):
        moment("expires", send.expires)
    elif send.expires is not None:
        seconds_ahead("expires", send.expires)


def _check_headers(headers: Any) -> None:
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a dict, not {shown(headers)}")
    for name in headers:
        if not isinstance(name, str):
            raise TypeError(f"headers must have names that are text, not {shown(name)}")
