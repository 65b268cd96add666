"""The part of a broker's contract that operators need: pause, take away, look at.

What is said in `jobs.broker.base` of consumers, numbers and times holds here as well. An operator
who takes away what waits does so as a consumer of one use: it is in flight meanwhile, and goes back
to its queue when the operator's process is lost. What is due is never in flight before its time,
since what goes back runs at once.
"""

from __future__ import annotations

import datetime as dt
import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

#: Added to the time (Unix seconds) at which a message of a paused task was put among the due ones:
#: it is not due before somebody resumes the task, and keeps its place among its like.
PARKED = 8e12


class Revocation(enum.IntEnum):
    NONE = 0
    #: It must not start.
    REVOKED = 1
    #: It must not go on either.
    TERMINATE = 2


class Pause(NamedTuple):
    """Nothing of a queue, or of one task, is handed out."""

    #: Name of the paused task; "": the whole queue.
    task: str
    by: str
    why: str
    at: dt.datetime


class Waiting(NamedTuple):
    """A message that no consumer holds."""

    raw: bytes
    #: That of the list it waits on, or with which it will be put on one.
    priority: int
    #: Unix seconds, more than `PARKED` while its task is paused; None: it is not among the due.
    due: float | None = None


class Parking(NamedTuple):
    """A delivery that waits for as long as its task is paused."""

    number: int
    priority: int
    task: str


class Revoked(NamedTuple):
    """A call that is not to start."""

    id: str
    #: Nor to go on.
    terminate: bool
    #: Unix seconds: for how long that is remembered.
    until: float


class Stats(NamedTuple):
    """Counts of one queue at this instant."""

    waiting: int
    in_flight: int
    due: int
    dead: int
    #: Consumers whose lease is running.
    consumers: int


class Consumer(NamedTuple):
    """One consumer of a queue."""

    name: str
    #: Seconds until its lease ends; negative when it has.
    lease: float
    in_flight: int


class Operating(ABC):
    # ------------------------------------------------------------------ pauses

    @abstractmethod
    def pause(self, queue: str, pause: Pause) -> None:
        """Hand nothing of the queue out, or none of one task's messages, until `resume`. Said
        again, it replaces what was said of the same before."""

    @abstractmethod
    def resume(self, queue: str, task: str = "") -> bool:
        """Take back what `pause` said of the queue, or of a task, and wake idle consumers. False:
        it wasn't paused. Interrupted, it has to be said again, for messages that are parked still.
        """

    @abstractmethod
    def paused(self, queue: str) -> list[Pause]:
        """All that is paused of the queue, the queue itself first."""

    @abstractmethod
    def park(self, queue: str, consumer: str, deliveries: Sequence[Parking]) -> set[int]:
        """Put those of these deliveries whose task is paused among the due ones, until it is
        resumed. Their numbers."""

    # ------------------------------------------------------------------ calls

    @abstractmethod
    def revoke(self, queue: str, task_id: str, seconds: float, *, terminate: bool) -> None:
        """Remember for so long that a task is not to start and, with ``terminate``, not to go
        on."""

    @abstractmethod
    def unrevoke(self, queue: str, task_id: str) -> None:
        """Forget what `revoke` said of a task."""

    @abstractmethod
    def hasten(self, queue: str, raw: bytes, priority: int) -> bool:
        """Have a message that waits for its time be due now. False, and nothing done, when it
        doesn't wait among the due ones."""

    # ------------------------------------------------------------------ taking away

    @abstractmethod
    def take(
        self, queue: str, consumer: str, first: int, limit: int, lease: float
    ) -> list[Waiting]:
        """Move up to ``limit`` messages that wait into flight under this consumer, numbered from
        ``first``, and lease them to it, the queue be paused or not. In the order of a claim."""

    @abstractmethod
    def pick(self, queue: str, consumer: str, number: int, lease: float, message: Waiting) -> bool:
        """The same with one message, as `browse` found it. False: it doesn't wait any more."""

    @abstractmethod
    def withdraw(self, queue: str, messages: Sequence[Waiting]) -> int:
        """Delete these messages from the due ones. How many there were."""

    # ------------------------------------------------------------------ looking

    @abstractmethod
    def stats(self, queue: str) -> Stats:
        """Counts of the queue."""

    @abstractmethod
    def consumers(self, queue: str) -> list[Consumer]:
        """Every known consumer, those with an ended lease included."""

    @abstractmethod
    def scan(self, queue: str) -> Iterator[bytes]:
        """Every message of the queue: due, waiting, in flight, dead. Read in pages, so that the
        server goes on with its work; what stays where it is comes at least once."""

    @abstractmethod
    def browse(self, queue: str, *, due: bool) -> Iterator[Waiting]:
        """What waits, or is due, the next first. Read in pages: what is claimed meanwhile can hide
        others from it."""

    @abstractmethod
    def holding(self, queue: str, consumer: str, numbers: Sequence[int]) -> list[bytes | None]:
        """The messages of these deliveries; None for those that are not held any more."""

    @abstractmethod
    def revocations(self, queue: str, count: int) -> list[Revoked]:
        """What is revoked, the last to be forgotten first, and so many at most."""

    # ------------------------------------------------------------------ workers

    @abstractmethod
    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        """Keep what a worker of a queue says of itself in place of what it said before; None: it
        is gone."""

    @abstractmethod
    def reports(self, queue: str) -> Mapping[str, bytes]:
        """Worker → what it said last. One that was killed has not said that it is gone."""
