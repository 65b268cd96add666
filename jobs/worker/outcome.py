"""What a worker holds, and what becomes of it: decided once, as a value."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from jobs.ledger import Attempt, Record
from jobs.message import Message
from jobs.registry import Task


class Delivery(NamedTuple):
    """One handing of a message to this worker."""

    queue: str
    number: int
    raw: bytes
    message: Message
    task: Task[..., Any]
    #: When it was claimed (monotonic seconds).
    claimed: float = 0.0
    #: Those that are run with it, as one batch.
    others: tuple[Delivery, ...] = ()


def each(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """With those of batches one by one."""
    return [one for delivery in deliveries for one in (delivery, *delivery.others)]


class Kind(enum.Enum):
    #: Finished: acknowledge it.
    DONE = enum.auto()
    #: It isn't finished: give it back as it is.
    BACK = enum.auto()
    #: Put it among the due ones.
    LATER = enum.auto()
    #: It can't be run: keep it for a person.
    DEAD = enum.auto()


class Outcome(msgspec.Struct):
    """What became of one delivery."""

    kind: Kind
    queue: str
    number: int
    #: For the ledger, if it is told at all.
    record: Record | None = None
    #: The attempt that another will follow.
    attempt: Attempt | None = None
    #: The task, when those who wait for its result are to be told.
    ended: str = ""
    #: When its delivery was claimed (monotonic seconds).
    claimed: float = math.inf
    #: False: it was acknowledged before it ran.
    held: bool = True
    #: The task raised: it may have left its database connection in any state.
    failed: bool = False
    #: The task, when it asked that nothing be recorded of this call.
    ignored: str = ""
    #: The task, when it has told of its progress.
    reported: str = ""
    #: With DEAD: why.
    reason: str = ""
    #: With LATER: the message, its priority, and when (Unix seconds). With BACK: the first two.
    #: With DEAD: the message.
    raw: bytes = b""
    priority: int = 0
    #: What is sent when this is recorded.
    following: list[Message] = []
    #: Ends of calls that would have followed.
    also: list[Record] = []
    due: float = 0.0
