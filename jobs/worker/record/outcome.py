"""What a worker holds, and what becomes of it: decided once, as a value."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from jobs import limits
from jobs.api.task import Task
from jobs.broker.limiting import Lock, Slot
from jobs.ledger import unique
from jobs.ledger.outcomes import Attempt, Record
from jobs.message import Message
from jobs.message.workflow import Call, Counted
from jobs.running import progress
from jobs.running.request import said


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
    #: What it holds of limits while it runs.
    slots: tuple[Slot, ...] = ()
    #: It was given a permit of its rate.
    permit: bool = False


def each(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """With those of batches one by one."""
    return [one for delivery in deliveries for one in (delivery, *delivery.others)]


class Member(NamedTuple):
    """A member of a chord that has ended."""

    id: str
    group_id: str
    root_id: str
    #: The chord's body as its message has it, if a Celery client may have sent that.
    body: Call | None = None


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

#: An outcome of fewer bytes is not weighed: batches are bounded by their number, too.
_SMALL = 4096


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
    #: The task, when it has told of its progress.
    reported: str = ""
    #: With DEAD: why.
    reason: str = ""
    #: With LATER: the message, its priority, and when (Unix seconds). With BACK: the first two.
    #: With DEAD: the message.
    raw: bytes = b""
    priority: int = 0
    #: What is sent, or ends too, when this is recorded.
    following: Following = NOTHING
    #: Other calls that have ended with it, for those who wait for them.
    told: list[str] = []
    due: float = 0.0
    #: What its delivery held of limits.
    slots: tuple[Slot, ...] = ()
    #: The slot that it waits for, when it is among the due ones.
    waits_for: Slot | None = None
    #: What its call gives up when it has ended.
    lock: Lock | None = None
    #: About how many bytes it holds, when they are many.
    size: int = 0

    def weigh(self) -> Outcome:
        """Itself, with its size."""
        size = len(self.raw)
        if self.record is not None:
            size += sum(map(len, filter(None, self.record[4:10]))) + len(self.record.message)
        if self.attempt is not None:
            size += len(self.attempt.error) + len(self.attempt.traceback)
        if self.following is not NOTHING:
            size += sum(len(one.body or "") for one in self.following.messages)
        self.size = size if size > _SMALL else 0
        return self

    def of(self, delivery: Delivery, *, held: bool) -> Outcome:
        """Itself, with what it takes over from the delivery that was run."""
        self.claimed, self.held, self.slots = delivery.claimed, held, delivery.slots
        self.lock = lock_of(delivery.message, delivery.task)
        if said:
            said.pop(delivery.message.id, None)
        if progress.told:
            self.reported = progress.over(delivery.message.id)
        # Its arguments are as long as the message; all else is looked at where it may be long.
        if (
            self.failed
            or self.following is not NOTHING
            or len(delivery.raw) > _SMALL
            or (self.record is not None and len(self.record.result or "") > _SMALL)
        ):
            self.weigh()
        return self


def limit_of(delivery: Delivery) -> str:
    """The name of the limits of a delivery; raises what the task's function of the key raises."""
    task, sent = delivery.task, delivery.message
    key = None if task.key is None else task.key(sent.args, sent.kwargs)
    return limits.name_of(task.name, key)


def slots_of(delivery: Delivery) -> tuple[Slot, ...]:
    """What the call of a delivery that is not run may hold, since its former process died."""
    if delivery.slots or delivery.task.concurrency is None:
        return delivery.slots
    try:
        name = limit_of(delivery)
    except Exception:  # noqa: BLE001  the task's own function, which has failed before
        return ()
    return (Slot(name, delivery.task.concurrency, delivery.message.id, delivery.queue),)


def lock_of(sent: Message, task: Task[..., Any] | None) -> Lock | None:
    """The unique lock that a call gives up at its end; that of a window stays."""
    if not sent.unique:
        return None  # the usual case, at every task
    asked = task.uniqueness if task else None
    if asked and asked.window:
        return None
    return unique.lock_of(sent, asked) if asked else Lock(sent.unique, sent.id)
