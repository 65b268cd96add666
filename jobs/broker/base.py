"""The contract of a broker, and the values that cross it.

A *consumer* is one claiming process, named uniquely for its lifetime. A *number* tells one of its
deliveries from another; the consumer counts them up itself. Times are Unix seconds by the
broker's own clock. Every verb raises `BrokerUnavailable` when the broker can't be reached, and is
then safe to call again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jobs.broker.limiting import Lock, Permit, Slot, Wish


class Outgoing(NamedTuple):
    """A message on its way to a queue."""

    queue: str
    raw: bytes
    priority: int = 0
    #: Unix seconds before which it must not run, or None.
    due: float | None = None


class Claim(NamedTuple):
    """What one claim brought."""

    #: Messages with their delivery numbers, in order.
    messages: list[tuple[int, bytes]]
    #: Seconds until the queue's next due message, or None when none waits.
    next_due: float | None
    #: Whether any task of this queue is revoked.
    revocations: bool = False
    #: Nothing was claimed, since what ``first`` numbered is settled: claim on from this number.
    resume: int | None = None
    #: Whether any task of this queue is paused.
    paused_tasks: bool = False


class Returned(NamedTuple):
    """A delivery that goes back to its queue."""

    number: int
    priority: int = 0
    #: The message's new wire form, or None to keep it as it is.
    raw: bytes | None = None


class Later(NamedTuple):
    """A delivery that gives way to a message due later."""

    number: int
    raw: bytes
    priority: int
    #: Unix seconds.
    due: float


class About(enum.StrEnum):
    """What a note of a running task is about."""

    PROGRESS = "progress"
    #: Where its loops are, for another run of it to go on from.
    POSITION = "position"


class Note(NamedTuple):
    """What a running task has others know of it."""

    task_id: str
    about: About
    value: bytes


class Keeping(NamedTuple):
    """How the broker's server keeps what it holds."""

    #: What it does when its memory is full, in Redis's words; "": it doesn't tell.
    eviction: str = ""
    #: Whether it writes to disk; None: it doesn't tell.
    on_disk: bool | None = None

    @property
    def loses(self) -> str:
        """What it may lose when its memory is full, as a sentence; empty: nothing."""
        if self.eviction.startswith("allkeys-"):
            lost = "messages are lost when its memory is full"
        elif self.eviction.startswith("volatile-"):
            lost = (
                "unique locks, limits, revocations and the positions of loops are forgotten when "
                "its memory is full"
            )
        else:
            return ""
        return f"Redis has the maxmemory-policy {self.eviction}: {lost}. Set it to noeviction."


class Subscription(ABC):
    """What comes in of one topic."""

    @abstractmethod
    def __call__(self, timeout: float) -> bool:
        """Wait up to so many seconds for one notification; whether there was one."""

    @abstractmethod
    def fileno(self) -> int:
        """What `select` can wait for. When it is ready there may be several notifications, or
        none; calls with no time at all tell."""


def ended(task_id: str) -> str:
    """The topic of a task's end."""
    return f"ended:{task_id}"


def lists_of(steps: Sequence[int]) -> tuple[int, ...]:
    """For each priority from 0 to 9, which of a queue's lists is its own: that of the last step
    not above it."""
    return tuple(sum(step <= priority for step in steps) - 1 for priority in range(10))


def progress(task_id: str) -> str:
    """The topic of a task's progress."""
    return f"progress:{task_id}"


#: For how many seconds it is known that a consumer's messages were taken away: as long as a task
#: may run on that does not know of it.
TAKEN_KEPT = 7 * 86_400.0


class DeadLetter(NamedTuple):
    """A message that can't be run, kept for a person."""

    key: str
    raw: bytes
    reason: str
    at: dt.datetime
    #: Name of the worker that gave it up.
    worker: str


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


class Broker(ABC):
    """Dispatches messages; knows nothing of tasks, results or the database."""

    #: Where it is, for people: without a password.
    address: str

    # ------------------------------------------------------------------ producers

    @abstractmethod
    def push(self, messages: Iterable[Outgoing]) -> None:
        """Put messages on their queues, or among their due ones, in one round trip, and wake an
        idle consumer for each.

        Of very many the first may be there while the last are still asked for. An error between
        leaves those. Raises `QueueRefused` when the broker takes nothing for one of the queues;
        what is for the others is there then, and ``unsent`` of the error tells which.
        """

    @abstractmethod
    def check_queues(self, queues: Collection[str]) -> None:
        """Raise `QueueRefused` for those that `push` would, as far as can be seen beforehand."""

    def briefly(self, *, insist: bool) -> contextlib.AbstractContextManager[None]:
        """Within it, this thread waits for no answer longer than a second; and when the broker has
        left anybody in this process without an answer a moment ago, it is not asked at all, but
        everything raises `BrokerUnavailable` at once.

        ``insist``: ask it once all the same.
        """
        return contextlib.nullcontext()

    # ------------------------------------------------------------------ consumers

    @abstractmethod
    def claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Claim:
        """Move what is due to the queue, then up to ``limit`` messages from the queue into flight
        under this consumer, numbered from ``first``. Most urgent first, oldest first within.

        A consumer that is given messages and isn't known to the queue gets a lease of this many
        seconds. Nothing is given of a paused queue. Repeated with the same ``first``, when the
        answer was lost, it gives the same messages again, as long as they are held; after that a
        late repetition gets nothing.
        """

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Sleep until one of the queues may have a message, for ``timeout`` seconds at most.

        A hint: it can return early, and it wakes one waiting consumer for each message.
        """

    @abstractmethod
    def wait_and_claim(
        self, queue: str, consumer: str, first: int, limit: int, lease: float, timeout: float
    ) -> Claim:
        """`wait` for a message of one queue, then `claim`, whether one came or not."""

    @abstractmethod
    def ack(
        self, queue: str, consumer: str, numbers: Sequence[int], ended: Sequence[str] = ()
    ) -> int:
        """Remove finished deliveries, and tell those who wait for the results of the tasks
        ``ended`` (ids). How many of the deliveries were still held."""

    @abstractmethod
    def retry(
        self, queue: str, consumer: str, number: int, raw: bytes, priority: int, due: float
    ) -> bool:
        """Swap a delivery for a message due later. False, and nothing done, when it is no longer
        held."""

    def retry_all(self, queue: str, consumer: str, deliveries: Sequence[Later]) -> None:
        """`retry` for each, in one round trip where that can be done."""
        for later in deliveries:
            self.retry(queue, consumer, *later)

    @abstractmethod
    def release(self, queue: str, consumer: str, deliveries: Sequence[Returned]) -> int:
        """Give deliveries back to the front of their queue. How many were still held."""

    @abstractmethod
    def held(self, queue: str, consumer: str, numbers: Sequence[int]) -> set[int]:
        """Those of these deliveries that the consumer still holds."""

    @abstractmethod
    def taken(self, queue: str, consumer: str) -> bool:
        """Whether what this consumer held was given back by others (`reclaim`) during the last
        `TAKEN_KEPT` seconds. What it doesn't hold though nobody has done so, a server has lost
        that came back without its data."""

    @abstractmethod
    def revoked(self, queue: str, ids: Sequence[str]) -> list[Revocation]:
        """What is said of each of these tasks."""

    @abstractmethod
    def note(self, queue: str, notes: Sequence[Note], seconds: float) -> None:
        """Keep notes of running tasks for so long, each in place of the one before, in one round
        trip; and tell those who are subscribed to a task's progress when it is about that."""

    @abstractmethod
    def noted(self, queue: str, task_id: str, about: About) -> bytes | None:
        """The last note of a task, or None when none is kept."""

    @abstractmethod
    def forget_notes(self, queue: str, task_ids: Sequence[str], about: About) -> None:
        """Keep the notes of these tasks no longer."""

    @abstractmethod
    def leave(self, queue: str, consumer: str) -> None:
        """A consumer that holds nothing is going; one that still holds something stays known, so
        that it is reclaimed."""

    # ------------------------------------------------------------------ supervisors

    @abstractmethod
    def renew(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        """Give these consumers, known to the queue or not, a lease of this many seconds from
        now."""

    @abstractmethod
    def expired(self, queue: str) -> list[str]:
        """Consumers whose lease has ended."""

    @abstractmethod
    def reclaim(self, queue: str, consumer: str, edit: Callable[[int, bytes], Returned]) -> int:
        """Give everything that a vanished consumer held back to the front of the queue, each
        message as ``edit(number, message)`` returns it, and forget the consumer.
        Any number of processes may do this at once. How many this call gave back."""

    # ------------------------------------------------------------------ notifications

    @abstractmethod
    def subscribe(self, *topics: str) -> contextlib.AbstractContextManager[Subscription]:
        """From entering on, what is notified of these topics is noticed."""

    @abstractmethod
    def notify(self, topic: str) -> None:
        """Wake everyone who is subscribed to this topic at this moment. A hint: nothing is kept
        for those who are not."""

    def listen(self, task_id: str) -> contextlib.AbstractContextManager[Subscription]:
        """`subscribe` to the end of a task, which `ack` tells of."""
        return self.subscribe(ended(task_id))

    def chord_size(self, group_id: str) -> int | None:
        """How many members a chord has that a Celery client sent itself; None: no client has said
        so here."""
        return None

    def keeping(self) -> Keeping:
        """How the server keeps what it holds, as far as it tells."""
        return Keeping()

    @abstractmethod
    def ping(self) -> None:
        """Return when the broker answers."""

    @abstractmethod
    def close(self) -> None:
        """Close this thread's connections."""

    # ------------------------------------------------------------------ dead letters

    @abstractmethod
    def dead_letter(self, queue: str, consumer: str, number: int, reason: str, worker: str) -> bool:
        """Move a delivery to the dead letters. False, and nothing done, when it is no longer
        held."""

    @abstractmethod
    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        """Add a message to the dead letters that was acknowledged before."""

    @abstractmethod
    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        """The newest ``count`` dead letters, or those older than the one with the key
        ``before``."""

    @abstractmethod
    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        """The dead letter with this key, or None when it isn't there."""

    @abstractmethod
    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        """Put a dead letter back on its queue, or ``raw`` in its place. False when it isn't there
        any more."""

    @abstractmethod
    def discard(self, queue: str, key: str) -> bool:
        """Delete a dead letter. False when it isn't there any more."""

    # ------------------------------------------------------------------ operators

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

    @abstractmethod
    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        """Keep what a worker of a queue says of itself in place of what it said before; None: it
        is gone."""

    @abstractmethod
    def reports(self, queue: str) -> Mapping[str, bytes]:
        """Worker → what it said last. One that was killed has not said that it is gone."""

    # ------------------------------------------------------------------ limits
    # Several limits at once are one round trip. Safe to repeat, but for `permits`: a permit whose
    # answer was lost is lost. What is kept of a limit goes when it says nothing any more; only
    # what operators have said of rates stays until they take it back.

    @abstractmethod
    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        """Ask for permits, in order. By a faster rate than the last time, what was taken and kept
        until then counts in intervals of the faster one."""

    @abstractmethod
    def set_rate(self, task: str, text: bytes | None) -> bool:
        """Keep what an operator says of a task's rate, for every worker, in place of what was said
        before; None: nothing. Whether something had been said."""

    @abstractmethod
    def rates(self) -> Mapping[str, bytes]:
        """Task → what `set_rate` keeps of it."""

    @abstractmethod
    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        """Take slots. For each 0.0 when it is held, or the time (Unix seconds) at which to ask
        again. Who holds one already holds it anew."""

    @abstractmethod
    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        """Have the messages that are due at `Slot.due` be due as soon as a slot is kept for them;
        to be called when they are among the due ones, or they could be missed. A hint: should it
        be lost, they ask again when they are due."""

    @abstractmethod
    def keep_slots(self, slots: Sequence[Slot]) -> None:
        """Hold slots for `SLOT` seconds from now; those that were lost stay lost."""

    @abstractmethod
    def free_slots(self, slots: Sequence[Slot]) -> None:
        """Give slots back, keep each for who has waited longest, and have his message be due."""

    @abstractmethod
    def lock(self, locks: Sequence[Lock]) -> list[str]:
        """Take locks, in order. For each "" when its call has it, or the id of the one that has;
        "-" for a lock that was to be kept, and that nobody has."""

    @abstractmethod
    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        """Give up the locks that these calls have. For each "", or the id of the other call that
        has it or had it last."""

    @abstractmethod
    def locked(self, names: Sequence[str]) -> list[str]:
        """Who has these locks: ids, or "" where nobody has."""
