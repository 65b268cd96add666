"""What a worker holds, and what becomes of it: decided once, as a value."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from jobs.ledger import Attempt, Record
from jobs.message import Message
from jobs.registry import Task
from jobs.workflow import Counted


class Delivery(NamedTuple):
    """One handing of a message to this worker."""

    queue: str
    number: int
    raw: bytes
    message: Message
    task: Task[..., Any]
    #: When it was claimed (monotonic seconds).
    claimed: float = 0.0


class Member(NamedTuple):
    """A member of a chord that has ended."""

    id: str
    group_id: str
    root_id: str


class Following(NamedTuple):
    """What comes after the end of a call."""

    messages: Sequence[Message] = ()
    #: Chords whose headers are among these messages.
    chords: Sequence[Counted] = ()
    #: The ends of calls that will not follow.
    ends: Sequence[Record] = ()
    #: Those of all these calls, the ended one included, that a chord waits for.
    members: Sequence[Member] = ()
    #: The call that these messages stand for: the last task that follows them has its id.
    replaces: str = ""


#: The usual case.
NOTHING = Following()


class Kind(enum.Enum):
    #: Finished: acknowledge it.
    DONE = enum.auto()
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
    #: With DEAD: why.
    reason: str = ""
    #: With LATER: the message, its priority, and when (Unix seconds). With DEAD: the message.
    raw: bytes = b""
    priority: int = 0
    #: What is sent, or ends too, when this is recorded.
    following: Following = NOTHING
    #: Other calls that have ended with it, for those who wait for them.
    told: list[str] = []
    due: float = 0.0
