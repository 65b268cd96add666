"""Send unique calls. `jobs/worker/claim/admission.py` is the worker's side.

A lock on Redis says which call stands for a key. Outside a transaction, sending takes the lock for
a minute, and once the message is there for as long as that may wait. Inside one it only looks
whether the lock is free: `publish` takes it after the commit, so a rollback leaves none.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import time
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

from django.db import connections, router

from jobs import broker
from jobs.broker.limiting import Lock, Take
from jobs.conf import RetryPolicy
from jobs.exceptions import AlreadyQueued, BrokerUnavailable, NotReplicated
from jobs.ledger import publish
from jobs.message import Message
from jobs.models import TaskResult

Until = Literal["until_start", "until_end"]
OnConflict = Literal["drop", "replace", "raise"]

_UNTIL = ("until_start", "until_end")
_ON_CONFLICT = ("drop", "replace", "raise")

#: Seconds after its due time for which a call that never ends keeps others away.
_FORGOTTEN = 86_400.0


class Uniqueness(NamedTuple):
    """What ``@task(unique=…, debounce=…, throttle=…)`` ask for."""

    #: "": for the window, whatever becomes of the call.
    until: Literal["until_start", "until_end", ""]
    #: Seconds of the window.
    window: float = 0.0
    on_conflict: OnConflict = "drop"
    #: Seconds without another call after which the last one runs.
    quiet: float = 0.0

    @property
    def replaces(self) -> bool:
        return self.on_conflict == "replace"

    def seconds(self, eta: dt.datetime | None, now: float) -> float:
        """The longest time for which a call that may start at ``eta`` keeps others away. ``now``:
        Unix seconds."""
        if self.window:
            return self.window
        return _FORGOTTEN + (max(0.0, eta.timestamp() - now) if eta else 0.0)


def uniqueness(
    unique: Any, on_conflict: Any = "drop", debounce: Any = None, throttle: Any = None
) -> Uniqueness | None:
    """Check these options of a task; None: its calls are not unique. Raises `TypeError` or
    `ValueError`."""
    given = {"unique": unique, "debounce": debounce, "throttle": throttle}
    named = [name for name, value in given.items() if value is not None]
    if on_conflict not in _ON_CONFLICT:
        raise ValueError(f"on_conflict must be 'drop', 'replace' or 'raise', not {on_conflict!r}")
    if not named:
        if on_conflict != "drop":
            raise ValueError("on_conflict is for a task with unique=")
        return None
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} are given; give one of them")
    if debounce is not None or throttle is not None:
        if on_conflict != "drop":
            raise ValueError(f"{named[0]} says itself which call wins; leave out on_conflict")
        if debounce is not None:
            return Uniqueness("until_start", 0.0, "replace", _span("debounce", debounce))
        return Uniqueness("", _span("throttle", throttle))
    if unique in _UNTIL:
        if on_conflict == "replace" and unique == "until_end":
            raise ValueError(
                "on_conflict='replace' needs unique='until_start': what runs can't be replaced"
            )
        return Uniqueness(unique, 0.0, on_conflict)
    if isinstance(unique, str):
        raise ValueError(
            f"unique must be 'until_start', 'until_end', seconds or a timedelta, not {unique!r}"
        )
    if on_conflict == "replace":
        raise ValueError("on_conflict='replace' needs unique='until_start'; see debounce, too")
    return Uniqueness("", _span("unique", unique), on_conflict)


def _span(name: str, value: Any) -> float:
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{name} must be seconds or a timedelta, not {value!r}")
    if value < 0.001:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    return float(value)


#: Seconds for which a lock is taken before its message is sent. A process that dies between the
#: two keeps others away for that time.
_UNSENT = 60.0


def send(
    messages: Sequence[Message],
    unique: Uniqueness,
    *,
    durable: bool = True,
    using: str | None = None,
    retry_policy: RetryPolicy | None = None,
    once: Hashable | None = None,
) -> list[str]:
    """`publish.send` of messages that name their locks (`Message.unique`).

    Returns for each message the id of the call that stands for its key: its own, or that of the
    call that was there before. Raises `AlreadyQueued`, with nothing sent, where the task asks for
    it.
    """
    locks = [lock_of(sent, unique) for sent in messages]
    alias = using or router.db_for_write(TaskResult)
    if connections[alias].in_atomic_block:
        holders = _look(locks, alias) if not unique.replaces else [""] * len(locks)
        _refuse_conflicts(messages, holders, unique)
        mine = [n for n, holder in enumerate(holders) if not holder]
        publish.send(
            [messages[n] for n in mine],
            durable=durable,
            using=using,
            once=once,
            locks={locks[n].task_id: locks[n] for n in mine},
        )
    else:
        holders = _take_and_send(messages, locks, unique, alias, retry_policy)
    return [holder or lock.task_id for holder, lock in zip(holders, locks, strict=True)]


def lock_of(sent: Message, unique: Uniqueness) -> Lock:
    """The lock that a message names."""
    take = Take.REPLACE if unique.replaces else Take.FREE
    return Lock(sent.unique, sent.id, unique.seconds(sent.eta, time.time()), take)


def _take_and_send(
    messages: Sequence[Message],
    locks: Sequence[Lock],
    unique: Uniqueness,
    alias: str,
    retry_policy: RetryPolicy | None,
) -> list[str]:
    unsent = [lock._replace(seconds=unique.window or _UNSENT) for lock in locks]
    holders = broker.get().lock(unsent)
    taken = [lock for lock, holder in zip(locks, holders, strict=True) if not holder]
    unsafe: NotReplicated | None = None
    try:
        _refuse_conflicts(messages, holders, unique)
        own = [m for m, holder in zip(messages, holders, strict=True) if not holder]
        if own:
            publish.send(own, using=alias, retry_policy=retry_policy)
    except NotReplicated as error:
        unsafe = error  # they are sent, and keep their locks
    except BaseException:
        with contextlib.suppress(BrokerUnavailable):  # the locks expire
            # FREE leaves no trace of them, so the calls that were to be replaced run.
            broker.get().unlock([lock._replace(take=Take.FREE) for lock in taken])
        raise
    if taken and not unique.window:
        with contextlib.suppress(BrokerUnavailable):  # the worker takes a lock that is free then
            broker.get().lock([lock._replace(take=Take.KEEP) for lock in taken])
    if unsafe:
        raise unsafe
    return holders


def _look(locks: Sequence[Lock], alias: str) -> list[str]:
    """The calls that have these locks, or will have them when this transaction commits; "" where
    there is none."""
    waiting = publish.locks_waiting(connections[alias])
    try:
        with broker.get().briefly(insist=False):
            held = broker.get().locked([lock.name for lock in locks])
    except BrokerUnavailable:
        held = [""] * len(locks)  # sending in a transaction doesn't need the broker
    holders = []
    for lock, holder in zip(locks, held, strict=True):
        # The first of its name among these messages stands for the others, too.
        found = holder or waiting.setdefault(lock.name, lock.task_id)
        holders.append("" if found == lock.task_id else found)
    return holders


def _refuse_conflicts(
    messages: Sequence[Message], holders: Sequence[str], unique: Uniqueness
) -> None:
    if unique.on_conflict != "raise":
        return
    for sent, holder in zip(messages, holders, strict=True):
        if holder:
            raise AlreadyQueued(
                f"Task {sent.task!r} is unique, and call {holder} of the same key is there "
                "already. Wait for its end, or let the task drop or replace (on_conflict=).",
                task_id=holder,
            )
