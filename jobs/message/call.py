"""One call of a task, as a value."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jobs import serialization
from jobs.message.ids import id_at, id_time

#: Stands where a sensitive argument would.
HIDDEN = "…"

#: What `mark` is given to take back what workers have noted on a message.
UNMARKED = {"jobs_crashes": 0, "jobs_killed": "", "jobs_unknown_since": 0.0}

#: Names of headers that are the protocol's, not the caller's own.
HEADERS = frozenset(
    {
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries"),
        *("timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"),
        *("ignore_result", "redelivered", "compression", "replaced_task_nesting"),
        "jobs_ledger",
        "jobs_unique",
    }
)


class Killed(enum.StrEnum):
    """Why a message is not run, or no longer: the supervisor ended the process that ran it, or an
    operator has purged it."""

    TIME_LIMIT = "time limit"
    REVOKED = "revoked"
    PURGED = "purged"


class Message(msgspec.Struct, kw_only=True, gc=False):
    """One call of a task."""

    task: str
    id: str
    queue: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    #: What follows the task, in Celery's terms: callbacks, errbacks, chain, chord.
    embed: dict[str, Any] = {}
    #: 0 is the most urgent, 9 the least, as Celery has it on Redis.
    priority: int = 0
    #: Not before.
    eta: dt.datetime | None = None
    #: Not after: it ends as REVOKED.
    expires: dt.datetime | None = None
    retries: int = 0
    ignore_result: bool | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    #: Hard and soft, in seconds.
    timelimit: tuple[float | None, float | None] = (None, None)
    #: The caller's own; None: among `wire_headers`, and not looked at yet.
    own_headers: dict[str, Any] | None = {}
    #: Some worker has held it before.
    redelivered: bool = False
    ledger: bool = False
    #: What it was published to; the exchange is empty where a queue was named. A message that was
    #: claimed doesn't say: it belongs to its queue.
    exchange: str = ""
    routing_key: str = ""
    #: Further queues that get it, each as a message of its own: see `spread`.
    copies: tuple[str, ...] = ()
    crashes: int = 0
    #: The broker sees to the eta, by its own clock.
    held: bool = False
    #: With a value of `Killed`: it has run, and was ended from outside.
    killed: str = ""
    #: Unix seconds; 0: no worker has not known the task.
    unknown_since: float = 0.0
    #: The name of its unique lock; "": it is not unique.
    unique: str = ""
    #: The time that is kept for it by a rate limit (Unix seconds), or 0.
    permit: float = 0.0
    #: Arguments whose values are not shown: names, and places ("0") of positional ones.
    sensitive: frozenset[str] = frozenset()
    #: ``name@host`` of the sender.
    origin: str | None = None
    #: The wire form of args, kwargs and embed, once known: what is sent again is not encoded again.
    body: str | None = None
    #: All headers in the form in which they came.
    wire_headers: bytes = b""

    @property
    def shown_args(self) -> list[Any]:
        """The positional arguments as they may be read: sensitive ones hidden."""
        if not self.sensitive:
            return self.args
        return [HIDDEN if str(n) in self.sensitive else v for n, v in enumerate(self.args)]

    @property
    def shown_kwargs(self) -> dict[str, Any]:
        """The keyword arguments as they may be read."""
        if not self.sensitive:
            return self.kwargs
        return {k: HIDDEN if k in self.sensitive else v for k, v in self.kwargs.items()}

    @property
    def headers(self) -> dict[str, Any]:
        """The caller's own headers."""
        if self.own_headers is None:
            try:
                found = serialization.loads(self.wire_headers)
            except ValueError:  # what only looks like a tagged value
                found = msgspec.json.decode(self.wire_headers, type=dict[str, Any])
            self.own_headers = {k: v for k, v in found.items() if k not in HEADERS}
        return self.own_headers


def next_attempt(
    sent: Message,
    *,
    eta: dt.datetime,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Message:
    """The message of another attempt at the same call, with other arguments if any are given."""
    following = msgspec.structs.replace(
        sent,
        retries=sent.retries + 1,
        eta=eta,
        parent_id=sent.id,
        own_headers=sent.headers,
        redelivered=False,
        crashes=0,
        killed="",
        unknown_since=0.0,
        permit=0.0,
    )
    if args is not None or kwargs is not None:
        following.args = sent.args if args is None else list(args)
        following.kwargs = sent.kwargs if kwargs is None else dict(kwargs)
        following.body = None
    return following


def first_attempt(sent: Message) -> Message:
    """The message of the same call as if it had never been run, now, for ever."""
    return msgspec.structs.replace(
        sent,
        retries=0,
        eta=None,
        expires=None,
        sensitive=sent.sensitive or hidden_by_sender(sent),
        own_headers=sent.headers,
        redelivered=False,
        crashes=0,
        killed="",
        unknown_since=0.0,
        permit=0.0,
    )


def spread(sent: Message) -> list[Message]:
    """A message, and one for each further queue that it is to reach.

    Those are calls of their own, under ids made from its id, so that each is run and recorded once
    by itself. What follows the call follows the first alone.
    """
    made = int((id_time(sent.id) or 0) * 1000)
    copies = [
        msgspec.structs.replace(
            sent,
            id=id_at(made, hashlib.sha256(f"{sent.id}>{queue}".encode()).digest()),
            queue=queue,
            copies=(),
            embed={},
            root_id=sent.root_id or sent.id,
            group=None,
            group_index=None,
            unique="",
            body=None,
        )
        for queue in sent.copies
    ]
    return [msgspec.structs.replace(sent, copies=()), *copies]


def hidden_by_sender(sent: Message) -> frozenset[str]:
    """All of a message's arguments if its sender hid one of them, for whoever doesn't know the
    task: which one it was can't be told."""
    found = msgspec.json.decode(sent.wire_headers or b"{}", type=dict[str, Any])
    shown = f"{found.get('argsrepr')}{found.get('kwargsrepr')}"
    if repr(HIDDEN) not in shown:
        return frozenset()
    return frozenset([*map(str, range(len(sent.args))), *sent.kwargs])
