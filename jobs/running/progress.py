"""The progress of a running call: its task reports it, and whoever has the call's id reads it.

It is kept on the broker while the call runs, and never written to the database.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from jobs import (
    broker,
    conf,
    serialization,
)
from jobs.broker.base import About, CeleryResult, Note
from jobs.exceptions import BrokerUnavailable, MessageTooLarge, NotSerializable, shown
from jobs.message import Message
from jobs.running import notes
from jobs.running.request import (
    Ended,
    current,
    said,
)
from jobs.states import TERMINAL, State

#: Longer messages are cut to so many characters.
_SHOWN = 1000
#: Most characters of a task's own state: the admin shows it among the others.
_STATE_MOST = 255
#: States that a task can't give itself.
_NOT_ITS_OWN = (str(State.PENDING), str(State.RETRY))
#: All numbers must be smaller than this.
_MOST = 10**18


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running call has reported last."""

    #: STARTED, or a state of the task's own.
    state: str
    done: float | None
    #: Out of how many; None: unknown.
    total: float | None
    message: str
    #: What the task passed to `update_state`.
    meta: Any
    #: When it was reported.
    at: dt.datetime
    #: The attempt that reported it, from 1.
    attempt: int = 1

    @property
    def percent(self) -> int | None:
        """0 to 100; None when the total is unknown."""
        if not self.total or self.done is None:
            return None
        return max(0, min(100, int(100 * self.done / self.total)))


class _Said(msgspec.Struct, frozen=True):
    """`Progress` as it is kept on the broker."""

    state: str = str(State.STARTED)
    done: int | float | None = None
    total: int | float | None = None
    message: str = ""
    meta: msgspec.Raw = msgspec.Raw(b"null")
    at: float = 0.0
    attempt: int = 1


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Said).decode

#: Task id → its last report, of the calls that run in this process.
told: dict[str, _Said] = {}


# ------------------------------------------------------------------------------ reporting


def report(done: float, total: float | None = None, message: str = "") -> None:
    """Report how much of the current call is done. Outside of a call it does nothing."""
    for value in (done, total):
        # Finite, not NaN, and within what any JSON reader can hold.
        if value is not None and not (isinstance(value, int | float) and -_MOST < value < _MOST):
            raise TypeError(f"Progress is told in numbers, not as {value!r}.")
    if not isinstance(message, str):
        raise TypeError(f"The message of a progress is text, not {message!r}.")
    running = current.get()
    if running is not None:
        _say(running[0], done=done, total=total, message=_plain(message[:_SHOWN]))


def count(done: int, total: int | None) -> None:
    """`report` by a loop, which leaves the task's own message as it is."""
    running = current.get()
    if running is not None:
        _say(running[0], done=done, total=total)


def update_state(state: str | None = None, meta: Any = None) -> None:
    """Report a state of the current call's own, with ``meta`` for details.

    A final state becomes that of the call, with ``meta`` as its result, if the task then raises
    `Ignore`.
    """
    _check_state(state)
    running = current.get()
    if running is None:
        return
    sent = running[0]
    of_task = f"task {sent.task!r}"
    if state in TERMINAL:
        _meta(of_task, meta)  # raises if it could not be kept
        said[sent.id] = Ended(str(state), meta)
        return
    said.pop(sent.id, None)
    changes: dict[str, Any] = {} if meta is None else {"meta": _meta(of_task, meta)}
    _say(sent, **changes, **({} if state is None else {"state": _plain(state)}))
    if state is not None and sent.celery and conf.get().celery_results != "none":
        text = _for_celery(sent.id, state, changes.get("meta"))
        notes.sender.put((sent.queue, sent.id, About.CELERY_STATE), lambda: text)


def update_state_of(
    task_id: str, find: Callable[[str], Any], state: str | None = None, meta: Any = None
) -> None:
    """Report a state of another call, at once. ``find``: its `TaskResult`, or None. One that has
    ended keeps its end."""
    _check_state(state)
    if state in TERMINAL:
        raise ValueError(
            f"{state} is an end, which only a call's own worker gives it: revoke the call "
            f"{task_id!r} by jobs.control.revoke, or choose another state."
        )
    text = _meta(f"the call {task_id}", meta)
    row = find(task_id)
    if row is not None and row.state in TERMINAL:
        return
    # Whoever has no row is searched on every queue.
    queue = row.queue if row is not None else conf.get().default_queue
    attempt = row.attempts + (row.state != State.STARTED) if row is not None else 1
    now = _Said(_plain(state or State.STARTED), meta=text, at=time.time(), attempt=attempt)
    note = Note(task_id, About.PROGRESS, _encode(now))
    broker.get().note(queue, [note], notes.KEPT[About.PROGRESS])
    running, wanted = current.get(), conf.get().celery_results
    if wanted == "all" or (wanted == "clients" and running is not None and running[0].celery):
        for_celery = _for_celery(task_id, now.state, text).decode()
        result = CeleryResult(task_id, for_celery, ended=False)
        broker.get().store_celery_results([result], conf.get().celery_result_expires)


def _check_state(state: str | None) -> None:
    if state is None:
        return
    if not isinstance(state, str) or not 0 < len(state) <= _STATE_MOST or state in _NOT_ITS_OWN:
        raise ValueError(
            f"A task's own state can't be {shown(state)}: it is text of up to {_STATE_MOST} "
            f"characters, and none of {', '.join(_NOT_ITS_OWN)}."
        )


def _for_celery(task_id: str, state: str, meta: msgspec.Raw | None) -> bytes:
    """What Celery's clients are told of a state of the call's own, in Celery's form."""
    about: dict[str, Any] = {
        "status": state,
        "result": None if meta is None else json.loads(bytes(meta)),
        "traceback": None,
        "children": [],
        "date_done": None,
        "task_id": task_id,
    }
    return json.dumps(about).encode()


def _say(sent: Message, **changes: Any) -> None:
    before = told.get(sent.id) or _Said(attempt=sent.attempt)
    now = told[sent.id] = msgspec.structs.replace(before, at=time.time(), **changes)
    key = (sent.queue, sent.id, About.PROGRESS)
    notes.sender.put(key, functools.partial(_encode, now))


def _plain(text: str) -> str:
    """Escape what UTF-8 can't encode."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _meta(of_what: str, meta: Any) -> msgspec.Raw:
    try:
        text = serialization.dumps(meta)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializable(
            f"The meta of {of_what}, a {type(meta).__name__}, can't be sent: {error}."
        ) from error
    limit = conf.get().result_max_bytes
    if len(text) > limit:
        raise MessageTooLarge(
            f"The meta of {of_what} has {len(text):,} bytes; JOBS['RESULT_MAX_BYTES'] "
            f"allows {limit:,}. Store the data and tell its key."
        )
    return msgspec.Raw(text.encode())


def over(task_id: str) -> str:
    """Forget a call that no longer runs here. Its id if it has reported anything, else ""."""
    return task_id if told.pop(task_id, None) else ""


# ------------------------------------------------------------------------------ reading


def read(task_id: str, row: Any = None) -> Progress | None:
    """The progress of a running call; None if it has none, or the broker is away.

    ``row``: the call's `TaskResult`, if there is one. Without it, every queue is searched.
    """
    if row is not None and row.state in TERMINAL:
        return None
    queues = [row.queue] if row is not None else list(conf.get().queues)
    for queue in queues:
        try:
            found = broker.get().noted(queue, task_id, About.PROGRESS)
        except BrokerUnavailable:
            return None
        if found is None:
            continue
        said = _read(found)
        if said is None or row is None:
            return said
        # Otherwise an attempt that is over has reported it.
        over = row.attempts - (row.state == State.STARTED)
        return said if said.attempt > over else None
    return None


def read_all(queue: str, task_ids: Sequence[str]) -> list[Progress | None]:
    """`read` for calls that are known to run, all from one queue. Raises `BrokerUnavailable`."""
    found = broker.get().noted_of(queue, task_ids, About.PROGRESS)
    return [None if one is None else _read(one) for one in found]


def _read(found: bytes) -> Progress | None:
    try:
        said = _decode(found)
        meta = serialization.loads(bytes(said.meta))
        at = dt.datetime.fromtimestamp(said.at, dt.UTC)
    except (ValueError, TypeError, ArithmeticError, RecursionError, OSError):
        return None  # it isn't ours
    return Progress(said.state, said.done, said.total, said.message, meta, at, said.attempt)
