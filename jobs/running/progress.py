"""How far a running call is: said by its task, read by whoever has its id.

A hint, kept on the broker while the call runs; nothing of it is written to the database.
"""

from __future__ import annotations

import datetime as dt
import functools
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from jobs import (
    broker,
    conf,
    serialization,
)
from jobs.broker.base import About
from jobs.exceptions import BrokerUnavailable, MessageTooLarge, NotSerializable
from jobs.message import Message
from jobs.running import notes
from jobs.running.request import (
    Ended,
    current,
    said,
)
from jobs.states import TERMINAL, State

#: Most characters of a message; the rest is cut off.
_SHOWN = 1000
#: States that only a worker can give.
_NOT_ITS_OWN = (str(State.PENDING), str(State.RETRY))
#: Numbers are smaller than this.
_MOST = 10**18


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is, in its own words."""

    #: STARTED, or what the task calls it.
    state: str
    done: float | None
    #: Of how many; None: nobody knows.
    total: float | None
    message: str
    #: What the task gave to `update_state`.
    meta: Any
    #: When it said so.
    at: dt.datetime
    #: Which attempt said so, from 1.
    attempt: int = 1

    @property
    def percent(self) -> int | None:
        """0 to 100; None when the total isn't known."""
        if not self.total or self.done is None:
            return None
        return max(0, min(100, int(100 * self.done / self.total)))


class _Said(msgspec.Struct, frozen=True):
    """The same on the broker."""

    state: str = str(State.STARTED)
    done: int | float | None = None
    total: int | float | None = None
    message: str = ""
    meta: msgspec.Raw = msgspec.Raw(b"null")
    at: float = 0.0
    attempt: int = 1


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Said).decode

#: Task id → what it has said, of the calls that run in this process.
told: dict[str, _Said] = {}


# ------------------------------------------------------------------------------ saying


def report(done: float, total: float | None = None, message: str = "") -> None:
    """So much is done of the call that runs here; nothing happens where none runs."""
    for value in (done, total):
        # Not infinite, not NaN, and what every JSON can hold.
        if value is not None and not (isinstance(value, int | float) and -_MOST < value < _MOST):
            raise TypeError(f"Progress is told in numbers, not as {value!r}.")
    if not isinstance(message, str):
        raise TypeError(f"The message of a progress is text, not {message!r}.")
    running = current.get()
    if running is not None:
        _say(running[0], done=done, total=total, message=_plain(message[:_SHOWN]))


def count(done: int, total: int | None) -> None:
    """`report`, by a loop: what the task itself has said in words stays."""
    running = current.get()
    if running is not None:
        _say(running[0], done=done, total=total)


def update_state(state: str | None = None, meta: Any = None, task_id: str | None = None) -> None:
    """The call that runs here is in a state of its own, about which ``meta`` says more.

    A state that ends a call is kept, with ``meta`` for its result, if the task raises `Ignore`.
    """
    if state is not None and (not isinstance(state, str) or not state or state in _NOT_ITS_OWN):
        raise ValueError(
            f"A task's own state can't be {state!r}: it is text, and none of "
            f"{', '.join(_NOT_ITS_OWN)}."
        )
    running = current.get()
    if running is None:
        return
    sent = running[0]
    if task_id is not None and task_id != sent.id:
        raise ValueError(
            f"Task {sent.task!r}[{sent.id}] can't give a state to the call {task_id!r}."
        )
    if state in TERMINAL:
        _meta(sent, meta)  # raises for what could not be kept
        said[sent.id] = Ended(str(state), meta)
        return
    said.pop(sent.id, None)
    changes: dict[str, Any] = {} if meta is None else {"meta": _meta(sent, meta)}
    _say(sent, **changes, **({} if state is None else {"state": _plain(state)}))


def _say(sent: Message, **changes: Any) -> None:
    before = told.get(sent.id) or _Said(attempt=sent.retries + 1)
    now = told[sent.id] = msgspec.structs.replace(before, at=time.time(), **changes)
    key = (sent.queue, sent.id, About.PROGRESS)
    notes.sender.put(key, functools.partial(_encode, now))


def _plain(text: str) -> str:
    """Without what has no form in UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _meta(sent: Message, meta: Any) -> msgspec.Raw:
    try:
        text = serialization.dumps(meta)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializable(
            f"The meta of task {sent.task!r}, a {type(meta).__name__}, can't be sent: {error}."
        ) from error
    limit = conf.get().result_max_bytes
    if len(text) > limit:
        raise MessageTooLarge(
            f"The meta of task {sent.task!r} has {len(text):,} bytes; JOBS['RESULT_MAX_BYTES'] "
            f"allows {limit:,}. Store the data and tell its key."
        )
    return msgspec.Raw(text.encode())


def over(task_id: str) -> str:
    """The call is not run here any more. Its id if it has said anything, else nothing."""
    return task_id if told.pop(task_id, None) else ""


# ------------------------------------------------------------------------------ reading


def read(task_id: str, row: Any = None) -> Progress | None:
    """What a call says of itself, if it runs; None as well while the broker is away.

    ``row``: the call's `TaskResult`, if it has one. Without it each queue is asked.
    """
    if row is not None and row.state in TERMINAL:
        return None
    queues = [row.queue] if row is not None else list(conf.get().queues)
    for queue in queues:
        try:
            found = broker.get().noted(queue, task_id, About.PROGRESS)
        except BrokerUnavailable:
            return None
        if found is not None:
            said = _progress(found)
            # An attempt before this one may have said something, too.
            over = row is not None and said is not None and said.attempt <= row.attempts
            return None if over else said
    return None


def _progress(found: bytes) -> Progress | None:
    try:
        said = _decode(found)
        meta = serialization.loads(bytes(said.meta))
        at = dt.datetime.fromtimestamp(said.at, dt.UTC)
    except (ValueError, TypeError, ArithmeticError, RecursionError, OSError):
        return None  # somebody else's
    return Progress(said.state, said.done, said.total, said.message, meta, at, said.attempt)
