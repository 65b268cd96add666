"""The contract of a broker, and the values that cross it.

A *consumer* is one claiming process; its name is used once. A *number* identifies one of its
deliveries; the consumer counts them up itself. Times are Unix seconds by the broker's own clock.
Every verb raises `BrokerUnavailable` when the broker can't be reached, and is then safe to repeat.

A message may name a tenant (`jobs.broker.tenants`). At each priority step of a queue, tenants with
waiting messages take turns, one message each. Messages without a tenant share turns, as if they all
belonged to one tenant. Where a verb below promises an order, it means the order among the messages
of each tenant.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jobs.broker.celery import CeleryChannels
from jobs.broker.celery_ends import CeleryEnds
from jobs.broker.counting import Counts, Span
from jobs.broker.limiting import Lock, Permit, Slot, Wish
from jobs.exceptions import ConfigurationError


class Outgoing(NamedTuple):
    """A message on its way to a queue."""

    queue: str
    raw: bytes
    priority: int = 0
    #: Unix seconds before which it must not run, or None.
    due: float | None = None
    #: Whether the message names a tenant; None: the broker looks.
    fair: bool | None = None
    #: A key under which the message is pushed once an hour at most; empty: at each push.
    once: str = ""


class Claim(NamedTuple):
    """What one claim returns."""

    #: Messages with their delivery numbers, in order.
    messages: list[tuple[int, bytes]]
    #: Seconds until the queue's next due message, or None when none waits.
    next_due: float | None
    #: Whether any task of this queue is revoked.
    revocations: bool = False
    #: The delivery ``first`` is settled already and nothing was claimed: continue from this number.
    resume: int | None = None
    #: Whether any task of this queue is paused.
    paused_tasks: bool = False
    #: Whether the queue gave nothing because it is paused; False also when nothing waits on it.
    paused: bool = False


class Returned(NamedTuple):
    """A delivery that goes back to its queue."""

    number: int
    priority: int = 0
    #: The message's new wire form, or None to keep it as it is.
    raw: bytes | None = None


class Later(NamedTuple):
    """A delivery that is replaced by a message due later."""

    number: int
    raw: bytes
    priority: int
    #: Unix seconds.
    due: float


class About(enum.StrEnum):
    """What a note of a running task is about."""

    PROGRESS = "progress"
    #: Where the task's loops are, so that its next run can continue from there.
    POSITION = "position"
    #: The state that it has given itself, for Celery's clients; brokers keep it elsewhere.
    CELERY_STATE = "celery"


class Note(NamedTuple):
    """What a running task lets others know."""

    task_id: str
    about: About
    value: bytes


class CeleryResult(NamedTuple):
    """A call's state as Celery's clients read it."""

    task_id: str
    #: JSON in Celery's form, which begins with the state: ``{"status": "SUCCESS", …``.
    text: str
    #: Whether the call has ended.
    ended: bool


class Keeping(NamedTuple):
    """How the server keeps its data."""

    #: Redis's maxmemory-policy; "" when the server doesn't say.
    eviction: str = ""
    #: Whether it writes to disk; None when the server doesn't say.
    on_disk: bool | None = None
    #: Bytes that it uses, and its maxmemory; 0: it doesn't say, or there is no limit.
    used: int = 0
    limit: int = 0
    #: Whether its last write to disk failed.
    failing: bool = False
    #: Whether it is a replica, which nobody can write to.
    read_only: bool = False

    @property
    def loses(self) -> str:
        """A sentence about what the server drops when its memory is full; "" for nothing."""
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


class Found(NamedTuple):
    """The numbers of a span."""

    counts: Counts
    #: False: some of them may still move within the broker, so the caller must not keep them.
    settled: bool = True


class Subscription(ABC):
    """Receives the notifications of its topics."""

    @abstractmethod
    def __call__(self, timeout: float) -> bool:
        """Wait for one notification, at most ``timeout`` seconds. Whether one came."""

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor for `select`. When it is ready, any number of notifications may have
        arrived, even none: call with a timeout of 0 to find out."""

    # A subscription is used either by calling it or by these three, which never wait.

    @abstractmethod
    def ask(self, topics: Sequence[str]) -> None:
        """Subscribe to these topics as well. Each is taken once, as if there were a notification,
        at the moment from which on no notification of it is missed."""

    @abstractmethod
    def leave(self, topics: Sequence[str]) -> None:
        """Receive nothing more of these topics. What is on its way may still come."""

    @abstractmethod
    def take(self) -> list[str]:
        """The topics of the notifications that have come since the last call."""


def ended(task_id: str) -> str:
    """The topic of a task's end."""
    return f"ended:{task_id}"


def progress(task_id: str) -> str:
    """The topic of a task's progress."""
    return f"progress:{task_id}"


#: Most messages of one claim, however many are asked for.
CLAIM_MOST = 1000

#: The topic of edits of schedules, to which each running beat is subscribed.
SCHEDULES = "schedules"


def lists_of(steps: Sequence[int]) -> tuple[int, ...]:
    """For each priority from 0 to 9, the index of its list: the last step not above it."""
    return tuple(sum(step <= priority for step in steps) - 1 for priority in range(10))


#: Seconds for which the broker remembers that a consumer's messages were taken away: a task that
#: doesn't know of it yet may run on for that long.
TAKEN_KEPT = 7 * 86_400.0


#: Seconds for which the broker remembers that a queue was compared with the ledger; then it is
#: compared once more. A comparison that doesn't go on for `COMPARING` seconds is over.
COMPARED, COMPARING = 7 * 86_400.0, 30.0


#: How many ended workers and children of a queue's reports are remembered, and for how long.
GONE_MOST, GONE_KEPT = 50, 86_400.0

#: Most commands that wait for one worker to take them.
COMMANDS_MOST = 10


class DeadLetter(NamedTuple):
    """A message that can't be run, kept for a person."""

    key: str
    raw: bytes
    reason: str
    at: dt.datetime
    #: Name of the worker that gave it up.
    worker: str


#: Added to the time (Unix seconds) at which a message of a paused task was parked. It isn't due
#: until the task is resumed, and keeps its place among the other parked messages.
PARKED = 8e12


class Revocation(enum.IntEnum):
    NONE = 0
    #: It must not start.
    REVOKED = 1
    #: It must not go on either.
    TERMINATE = 2


class Pause(NamedTuple):
    """Says that no message of a queue, or of one task, is handed out."""

    #: Name of the paused task; "": the whole queue.
    task: str
    by: str
    why: str
    at: dt.datetime


class Compare(enum.StrEnum):
    """A step of a comparison of a queue with the ledger."""

    BEGIN = "begin"
    CONTINUE = "continue"
    END = "end"


class Waiting(NamedTuple):
    """A message that no consumer holds."""

    raw: bytes
    #: Priority of the list that it waits on, or will be put on when it is due.
    priority: int
    #: Unix seconds, at least `PARKED` while its task is paused; None: it isn't among the due.
    due: float | None = None


class InFlight(NamedTuple):
    """A message that a consumer holds."""

    consumer: str
    #: Of the delivery.
    number: int
    raw: bytes
    #: Where it is held; empty: the queue has one shard.
    shard: str = ""


class Parking(NamedTuple):
    """A delivery to be parked for as long as its task is paused."""

    number: int
    priority: int
    task: str


class Revoked(NamedTuple):
    """A call that must not start."""

    id: str
    #: Whether it must not go on either.
    terminate: bool
    #: Unix seconds until which the revocation is remembered.
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
    #: Seconds until its lease ends; negative once it has ended.
    lease: float
    in_flight: int


class Survey(NamedTuple):
    """Everything about one queue that its operators want to see at once."""

    stats: Stats
    consumers: list[Consumer]
    pauses: list[Pause]
    #: Worker → its last report; a killed worker's report is still there.
    reports: Mapping[str, bytes]
    #: The next message of each priority step; none for one above `READABLE` bytes.
    next_ones: list[bytes]
    #: Why the server refuses to say anything of this queue; then the rest is empty.
    problem: str = ""


#: Bytes of the largest message that a survey brings along.
READABLE = 65_536

#: Most pairs of a queue and a number of shards that the broker remembers.
SHARDS_KNOWN = 10_000

#: Names of undeclared queues that the broker remembers, and seconds after which a process repeats
#: the name of one that it uses.
QUEUES_KNOWN, KNOWN_AGAIN = 1000, 3600.0


class Broker(ABC):
    """Dispatches messages; knows nothing of tasks, results or the database.

    A queue is one list of keys, unless `jobs.broker.sharding` makes one of several: there,
    consumers and supervisors name shards in place of queues.
    """

    #: The address as it is shown to people, without a password.
    address: str

    # ------------------------------------------------------------------ producers

    @abstractmethod
    def push(self, messages: Iterable[Outgoing], replicas: int = 0) -> None:
        """Put messages on their queues, or among the due ones, in one round trip, and wake an idle
        consumer for each.

        ``replicas``: wait until so many replicas have them too; raises `NotReplicated` if that
        takes too long.

        A long iterable is sent while it is still being read; if it raises, what was sent before
        stays there. Raises `QueueRefused` when the broker refuses one of the queues; messages for
        the others are sent all the same, and the error's ``unsent`` lists those that aren't.
        """

    @abstractmethod
    def check_queues(self, queues: Collection[str]) -> None:
        """Raise `QueueRefused` for queues that `push` would refuse, as far as that shows in
        advance."""

    def briefly(self, *, insist: bool) -> contextlib.AbstractContextManager[None]:
        """Within this context the thread waits at most a second for an answer. If the broker has
        just failed to answer any thread of this process, it isn't asked at all: every verb raises
        `BrokerUnavailable` at once.

        ``insist``: ask it once even then.
        """
        return contextlib.nullcontext()

    def passing_over(self) -> contextlib.AbstractContextManager[None]:
        """Within this context the thread passes over a node of a Cluster that doesn't answer within
        a second: for some seconds every verb about its queues raises `BrokerUnavailable` at once,
        so that queues of other nodes don't wait for it. Does nothing where there is one server."""
        return contextlib.nullcontext()

    # ------------------------------------------------------------------ consumers

    @abstractmethod
    def claim(self, queue: str, consumer: str, first: int, limit: int, lease: float) -> Claim:
        """Move what is due to the queue, then move up to ``limit`` messages from the queue into
        flight under this consumer, numbered from ``first``: the most urgent first, then the oldest
        or, where tenants wait, in turns.

        A consumer that receives messages and has no lease on the queue gets one of ``lease``
        seconds. A paused queue gives nothing. Repeated with the same ``first`` after a lost
        answer, it returns the same messages as long as they are held; later it returns nothing.
        """

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float) -> str | None:
        """Sleep until one of the queues may have a message, at most ``timeout`` seconds. The queue
        whose bell rang; None: none rang.

        It may return early. Each message wakes one waiting consumer.
        """

    @abstractmethod
    def stirring(self, queues: Sequence[str], due: Collection[str] = ()) -> list[str]:
        """Those of these queues on which a message waits or a bell rings and, of those that are in
        ``due``, on which a message is due, now or later.

        For a consumer that has found them empty. When they all still are, this is one command,
        however many they are. It names a queue that the broker refuses to look at.
        """

    @abstractmethod
    def wait_and_claim(
        self, queue: str, consumer: str, first: int, limit: int, lease: float, timeout: float
    ) -> Claim:
        """`wait` for one queue, then `claim` from it, also after a time-out."""

    @abstractmethod
    def ring_for_foreign(self, queue: str, timeout: float) -> int:
        """Sleep until a message of priority 0 waits on the queue, at most ``timeout`` seconds, then
        wake idle consumers for all that waits there. How many messages do.

        For open queues: foreign senders ring no bell. The messages stay where they are.
        """

    @abstractmethod
    def ack(
        self, queue: str, consumer: str, numbers: Sequence[int], ended: Sequence[str] = ()
    ) -> int:
        """Remove finished deliveries, and notify those who wait for the ``ended`` tasks (ids). How
        many of the deliveries were still held."""

    @abstractmethod
    def retry(
        self, queue: str, consumer: str, number: int, raw: bytes, priority: int, due: float
    ) -> bool:
        """Replace a delivery by a message due later. False, and no change, when it is no longer
        held."""

    def retry_all(self, queue: str, consumer: str, deliveries: Sequence[Later]) -> None:
        """`retry` each of these, in one round trip where the broker can."""
        for later in deliveries:
            self.retry(queue, consumer, *later)

    @abstractmethod
    def release(self, queue: str, consumer: str, deliveries: Sequence[Returned]) -> int:
        """Give deliveries back to the front of their queue. How many were still held."""

    @abstractmethod
    def held(self, queue: str, consumer: str, numbers: Sequence[int]) -> set[int]:
        """Which of these deliveries the consumer still holds."""

    @abstractmethod
    def numbers_held(self, queues: Sequence[str], consumer: str) -> dict[str, set[int]]:
        """Queue → the numbers of all deliveries that the consumer holds of it, in one round trip
        where the broker can. Queues that the broker refuses are left out."""

    @abstractmethod
    def taken(self, queue: str, consumer: str) -> bool:
        """Whether others gave back this consumer's messages (`reclaim`) in the last `TAKEN_KEPT`
        seconds. If not, deliveries that it no longer holds were lost by a server that came back
        without its data."""

    @abstractmethod
    def hold_again(
        self,
        queue: str,
        consumer: str,
        deliveries: Mapping[int, bytes],
        following: int,
        lease: float,
    ) -> int:
        """Put deliveries (number → message) that the consumer works on back into flight, those that
        the server has lost, and return how many it had lost. 0 if they were `taken`.

        ``following``: the number of its next delivery. A consumer without a lease gets one of
        ``lease`` seconds.
        """

    @abstractmethod
    def revoked(self, queue: str, ids: Sequence[str]) -> list[Revocation]:
        """Whether each of these tasks is revoked."""

    @abstractmethod
    def note(self, queue: str, notes: Sequence[Note], seconds: float) -> None:
        """Keep notes of running tasks for so long, each replacing the one before, in one round
        trip. A note about progress notifies those who subscribed to it."""

    @abstractmethod
    def noted(self, queue: str, task_id: str, about: About) -> bytes | None:
        """The last note of a task, or None when none is kept."""

    @abstractmethod
    def noted_of(self, queue: str, task_ids: Sequence[str], about: About) -> list[bytes | None]:
        """The last note of each of these tasks, in one round trip."""

    @abstractmethod
    def forget_notes(self, queue: str, task_ids: Sequence[str], about: About) -> None:
        """Delete the notes of these tasks."""

    @abstractmethod
    def leave(self, queue: str, consumer: str) -> None:
        """Forget a consumer that holds nothing. One that still holds messages stays known, so that
        they can be reclaimed."""

    # ------------------------------------------------------------------ supervisors

    @abstractmethod
    def renew(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        """Give these consumers a lease of so many seconds from now, known to the queue or not."""

    @abstractmethod
    def retain(self, queue: str, consumers: Sequence[str], lease: float) -> None:
        """`renew` those of these consumers that hold a message of the queue, and forget the
        others."""

    @abstractmethod
    def attended(self, queues: Sequence[str]) -> list[str]:
        """Those of these queues that have a consumer, or a worker's report.

        When none has, this is one command, however many they are. It names a queue that the broker
        refuses to look at.
        """

    @abstractmethod
    def expired(self, queue: str) -> list[str]:
        """Consumers whose lease has ended."""

    @abstractmethod
    def reclaim(self, queue: str, consumer: str, edit: Callable[[int, bytes], Returned]) -> int:
        """Give all that a vanished consumer held back to the front of the queue, each message as
        ``edit(number, message)`` returns it, and forget the consumer. How many this call gave
        back; several processes may do this at once."""

    @abstractmethod
    def doubtful(self, queues: Sequence[str]) -> list[str]:
        """Those of these queues of which the server may have lost messages since they were last
        compared with the ledger: it was restarted or emptied, another has taken over, or they
        never were. One round trip. A queue that the broker refuses, or whose node of a Cluster is
        away, is left out."""

    @abstractmethod
    def compare(self, queue: str, who: str, step: Compare) -> bool:
        """Begin, continue or end a comparison of a doubtful queue with the ledger.

        BEGIN: whether to compare it; False when somebody else does, or when it isn't doubtful.
        CONTINUE and END: False when the server has lost data since BEGIN, or `COMPARING` seconds
        have passed since the last step; then the queue stays doubtful. After END it isn't.
        """

    # ------------------------------------------------------------------ notifications

    @abstractmethod
    def subscribe(self, *topics: str) -> contextlib.AbstractContextManager[Subscription]:
        """Receive the notifications of these topics from the moment the context is entered; without
        topics, of those that the subscription asks for."""

    @abstractmethod
    def notify(self, topic: str) -> None:
        """Wake everyone who is subscribed to this topic now. Nothing is kept for later
        subscribers."""

    def listen(self, task_id: str) -> contextlib.AbstractContextManager[Subscription]:
        """`subscribe` to the end of a task, which `ack` announces. The thread may keep a connection
        for it."""
        return self.subscribe(ended(task_id))

    def celery(self) -> CeleryChannels:
        """Where Celery's clients control workers and watch them. Raises `ConfigurationError` on a
        broker that Celery doesn't know."""
        raise ConfigurationError(
            "Celery's clients reach workers on one Redis server, or on one with Sentinels, but not "
            f"on {self.address}: set JOBS['CELERY_CONTROL'] to 'none' and JOBS['CELERY_EVENTS'] to "
            "False."
        )

    def celery_ends(self) -> CeleryEnds:
        """Where Celery's workers leave the results of calls. Raises `ConfigurationError` on a
        broker that Celery doesn't know."""
        raise ConfigurationError(
            "Celery's workers leave their results on one Redis server, or on one with Sentinels, "
            f"but not on {self.address}: take 'foreign_workers' out of JOBS['QUEUES']."
        )

    def chord_size(self, group_id: str) -> int | None:
        """How many members a chord has that a Celery client sent; None when no client has stored
        that here."""
        return None

    def chord_results(self, group_id: str) -> bytes | None:
        """The results of the members of such a chord, as the client has saved them, in JSON; None
        unless some of them are groups."""
        return None

    @abstractmethod
    def store_celery_results(self, results: Sequence[CeleryResult], seconds: float | None) -> None:
        """Store results where Celery's clients read them, for so long (None: for ever), and wake
        those clients. A success that is stored stays, and so does an end when the call is said not
        to have ended. Does nothing if this is a broker that those clients can't reach."""

    @abstractmethod
    def store_celery_parts(
        self, group_id: str, parts: Sequence[tuple[int, str]], seconds: float | None
    ) -> None:
        """Store how the members of a failed chord have ended, where Celery's clients read that:
        the place of each, and JSON in Celery's form. Likewise."""

    def keeping(self) -> Keeping:
        """How the server keeps its data, as far as it says."""
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
        """Move a delivery to the dead letters. False, and no change, when it is no longer held."""

    @abstractmethod
    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        """Add a message that is already acknowledged to the dead letters."""

    @abstractmethod
    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        """The newest ``count`` dead letters; with ``before``, those older than that key."""

    @abstractmethod
    def dead_letters_of(
        self, before: Mapping[str, str | None], count: int
    ) -> dict[str, list[DeadLetter]]:
        """`dead_letters` of several queues, each with its key ``before``, in one round trip."""

    @abstractmethod
    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        """The dead letter with this key, or None when it is gone."""

    @abstractmethod
    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        """Put a dead letter, or ``raw`` in its place, back on its queue. False when it is gone."""

    @abstractmethod
    def discard(self, queue: str, key: str) -> bool:
        """Delete a dead letter. False when it is gone."""

    # ------------------------------------------------------------------ operators

    @abstractmethod
    def pause(self, queue: str, pause: Pause) -> None:
        """Hand out no message of the queue, or of one task, until `resume`. Replaces an earlier
        pause of the same queue or task."""

    @abstractmethod
    def resume(self, queue: str, task: str = "") -> bool:
        """End the pause of the queue or of a task, and wake idle consumers. False: it wasn't
        paused. After an interruption, repeat it: some messages may still be parked."""

    @abstractmethod
    def paused(self, queue: str) -> list[Pause]:
        """The pauses of this queue: its own first, then those of tasks."""

    @abstractmethod
    def paused_of(self, queues: Sequence[str]) -> list[list[Pause]]:
        """`paused` of several queues, in one round trip."""

    @abstractmethod
    def park(self, queue: str, consumer: str, deliveries: Sequence[Parking]) -> set[int]:
        """Put deliveries of paused tasks among the due ones until their task is resumed. The
        numbers of those that were parked."""

    @abstractmethod
    def revoke(self, queue: str, task_id: str, seconds: float, *, terminate: bool) -> None:
        """Remember for so long that a task must not start and, with ``terminate``, must not go
        on."""

    @abstractmethod
    def unrevoke(self, queue: str, task_id: str) -> None:
        """Forget the revocation of a task."""

    @abstractmethod
    def hasten(self, queue: str, raw: bytes, priority: int) -> bool:
        """Make a message due now. False, and no change, when it isn't among the due ones."""

    @abstractmethod
    def take(
        self, queue: str, consumer: str, first: int, limit: int, lease: float
    ) -> list[Waiting]:
        """Move up to ``limit`` waiting messages into flight under this consumer, numbered from
        ``first``, with a lease, even from a paused queue. In the order of a claim."""

    @abstractmethod
    def pick(self, queue: str, consumer: str, number: int, lease: float, message: Waiting) -> bool:
        """`take` one message that `browse` has found. False: it no longer waits."""

    @abstractmethod
    def withdraw(self, queue: str, messages: Sequence[Waiting]) -> int:
        """Delete these messages from the due ones. How many there were."""

    @abstractmethod
    def stats(self, queue: str) -> Stats:
        """Counts of the queue."""

    @abstractmethod
    def consumers(self, queue: str) -> list[Consumer]:
        """Every known consumer, also those whose lease has ended."""

    @abstractmethod
    def scan(self, queue: str) -> Iterator[bytes]:
        """Every message of the queue: due, waiting, in flight, dead. It is read in pages, so that
        the server stays responsive; a message that doesn't move is returned at least once."""

    @abstractmethod
    def browse(self, queue: str, *, due: bool) -> Iterator[Waiting]:
        """The messages that wait or, with ``due``, that are due later, the next first; tenants one
        after the other. It is read in pages: a claim in between can make it skip some."""

    @abstractmethod
    def peek(self, queue: str, start: int, count: int) -> list[Waiting]:
        """Up to ``count`` waiting messages in the order of a claim, without the first ``start``.
        One round trip, however many wait. Of more than 1,000 tenants of a priority step, a broker
        may leave out those whose turns come later."""

    @abstractmethod
    def peek_due(self, queue: str, count: int, since: float = 0.0, skip: int = 0) -> list[Waiting]:
        """Up to ``count`` messages that are due at ``since`` (Unix seconds) or later, the next
        first, without the first ``skip`` of them. One round trip, however many are due."""

    @abstractmethod
    def peek_in_flight(self, queue: str, start: int, count: int) -> list[InFlight]:
        """Up to ``count`` messages in flight, without the first ``start``; by the names of their
        consumers, then by number. One round trip."""

    @abstractmethod
    def revocations(self, queue: str, count: int) -> list[Revoked]:
        """The ``count`` revocations that are remembered longest, the longest first."""

    @abstractmethod
    def report(self, queue: str, worker: str, text: bytes | None) -> None:
        """Replace a worker's report; None deletes it, since the worker leaves."""

    @abstractmethod
    def reports(self, queue: str) -> Mapping[str, bytes]:
        """Worker → its last report. A killed worker's report is still there."""

    @abstractmethod
    def survey(self, queues: Sequence[str]) -> list[Survey]:
        """All about these queues, in one round trip where the broker can. It changes nothing."""

    def damaged(self) -> list[str]:
        """Keys that hold another type than they should, of those that this process has met in
        `survey`, `counts` and whatever else is read for people. What belongs there is missing from
        the answers. A key that is as it should be again is left out."""
        return []

    @abstractmethod
    def held_by(self, deliveries: Sequence[tuple[str, str, Sequence[int]]]) -> list[bytes | None]:
        """The messages of deliveries (queue, consumer and numbers), in one round trip where the
        broker can: one flat list, with None for each that is no longer held."""

    @abstractmethod
    def remember_queues(self, queues: Collection[str]) -> None:
        """Remember names of queues that the settings don't declare, so that operators find them.

        At most `QUEUES_KNOWN` names are kept, the latest ones. Cheap to repeat: a name is sent once
        in `KNOWN_AGAIN` seconds.
        """

    @abstractmethod
    def remembered_queues(self, count: int) -> list[str]:
        """The ``count`` names remembered last, the latest first."""

    @abstractmethod
    def remember_shards(self, counts: Mapping[str, int]) -> None:
        """Remember that somebody sends to these queues on so many shards each."""

    @abstractmethod
    def remembered_shards(self) -> Mapping[str, int]:
        """Queue → the most shards that anybody has remembered, where that is more than one."""

    @abstractmethod
    def forget_shards(self, queue: str, above: int, seconds: float) -> bool:
        """Forget numbers of shards above this one that nobody has remembered anew for so many
        seconds. Whether there were any, and all of them are forgotten."""

    @property
    def by_shard(self) -> Broker:
        """The broker for which a shard is a queue like any other."""
        return self

    def shards_of(self, queue: str) -> list[str]:
        """The shards of a queue, by the names under which workers claim from them."""
        return [queue]

    def all_shards(self, queues: Sequence[str]) -> dict[str, list[str]]:
        """Queue → its shards, as the broker knows them now. One round trip."""
        return {queue: self.shards_of(queue) for queue in queues}

    def address_for(self, queue: str, key: str) -> str:
        """What to name as the queue in `push`, so that calls with equal keys share a shard."""
        return queue

    @abstractmethod
    def listeners(self, topic: str) -> int | None:
        """How many are subscribed to a topic now; None when the server doesn't say."""

    @abstractmethod
    def reports_of(self, queues: Sequence[str]) -> list[Mapping[str, bytes]]:
        """`reports` of several queues, in one round trip."""

    @abstractmethod
    def report_ages(self, queue: str, most: int = 0) -> Mapping[str, float]:
        """Worker → seconds since its last report; with ``most``, only so many, of the oldest
        reports."""

    @abstractmethod
    def report_ages_of(self, queues: Sequence[str]) -> list[Mapping[str, float]]:
        """`report_ages` of several queues, in one round trip."""

    @abstractmethod
    def note_gone(self, queue: str, text: bytes, worker: str = "") -> bool:
        """Keep how a worker or one of its children ended, among the last `GONE_MOST`, for
        `GONE_KEPT` seconds. With ``worker``, its report is removed; False, and no change, when it
        has none, since somebody else has noted its end."""

    @abstractmethod
    def gone_of(self, queues: Sequence[str]) -> list[list[bytes]]:
        """What `note_gone` has kept for each of these queues, the newest first, in one round
        trip."""

    @abstractmethod
    def command(self, queue: str, worker: str, text: bytes, seconds: float) -> None:
        """Leave a command for a worker, which it must take within so many seconds. Of those that
        it hasn't taken yet, the last `COMMANDS_MOST` are kept."""

    @abstractmethod
    def take_commands(self, queue: str, worker: str) -> list[bytes]:
        """The commands left for a worker, the oldest first. None is given out twice, so one is
        lost when this answer is."""

    @abstractmethod
    def answer(self, queue: str, command_id: str, text: bytes, seconds: float) -> None:
        """Keep a worker's answer to a command for so long, in place of an earlier one."""

    @abstractmethod
    def answered(self, queue: str, command_id: str) -> bytes | None:
        """The answer to a command, or None when none is kept."""

    # ------------------------------------------------------------------ limits
    # Each verb deals with several limits in one round trip. All are safe to repeat but `permits`:
    # a permit is lost if its answer is. The broker drops what it knows of a limit as soon as that
    # no longer matters; only an operator's overrides stay until they are removed.

    @abstractmethod
    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        """Ask for permits, in order. If the rate is faster than it was last time, the permits
        taken and reserved so far are counted in its shorter intervals."""

    @abstractmethod
    def set_override(self, name: str, text: bytes | None) -> bool:
        """Store for every worker what an operator has set in place of the code, under this name;
        None deletes it. Whether there was one. The name of a task has its rate."""

    @abstractmethod
    def overrides(self) -> Mapping[str, bytes]:
        """Name → what `set_override` has stored."""

    @abstractmethod
    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        """Take slots. For each 0.0 when it is held, else the time (Unix seconds) at which to ask
        again. A holder that asks again holds its slot for longer."""

    @abstractmethod
    def keep_slots(self, slots: Sequence[Slot]) -> None:
        """Hold slots for `SLOT` seconds from now; lost slots stay lost."""

    @abstractmethod
    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        """Register messages that are due at `Slot.due`, to become due as soon as a slot is free
        for them. Call it once they are among the due ones, or they could be missed. If this call
        is lost, they ask again at their due time."""

    @abstractmethod
    def free_slots(self, slots: Sequence[Slot]) -> None:
        """Give slots back. Each is reserved for the holder that has waited longest, whose message
        becomes due."""

    @abstractmethod
    def slots_in_use(self, limits: Sequence[str]) -> list[int]:
        """How many slots of each of these limits are held or reserved."""

    @abstractmethod
    def lock(self, locks: Sequence[Lock]) -> list[str]:
        """Take locks, in order. For each "" when its call has it, else the id of the call that
        has it; "-" when a lock to be kept is held by nobody."""

    @abstractmethod
    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        """Release the locks that these calls have. For each "", or the id of another call that
        has it or had it last."""

    @abstractmethod
    def locked(self, names: Sequence[str]) -> list[str]:
        """The ids of the calls that have these locks, "" for a free one."""

    # ------------------------------------------------------------------ numbers
    # A broker counts what is pushed by itself, in the span of that moment. All numbers expire.

    @abstractmethod
    def count(self, queue: str, counts: Counts, tasks: Mapping[str, Counts]) -> None:
        """Add to the numbers of a queue, and of its tasks, in the present span of each resolution.
        Not safe to repeat: what got no answer may have been counted."""

    @abstractmethod
    def counts(self, spans: Sequence[Span]) -> list[Found]:
        """The numbers of these spans, in one round trip."""

    @abstractmethod
    def task_counts(
        self, spans: Sequence[Span], fields: Sequence[str] = ()
    ) -> list[Mapping[str, Counts]]:
        """For each of these spans, task → its numbers; with ``fields``, those alone, of the tasks
        that have any. Tasks beyond `TASKS` are `OTHER`."""
