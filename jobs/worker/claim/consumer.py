"""One child's claims: as much as its runners can use. What they can't use goes back.

`Consumer.step` is the loop's body; `run` repeats it in a thread of its own, so that a long task
in the main thread holds up neither claims for the event loop nor the return of what waits behind
it. Beside it stand the parts it is made of: which queue comes first (`Order`), what waits for
others of its batch (`Gathering`), what runs alone (`Quarantine`), how much to claim
(`ClaimSize`), and how long to wait (`Idling`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from django.db import Error as DatabaseError
from django.db import connections
from msgspec.structs import replace

from jobs import broker, conf, ledger
from jobs.broker.base import CLAIM_MOST, Claim, Returned, Revocation
from jobs.broker.sharding import shown
from jobs.exceptions import BrokerUnavailable, QueueRefused
from jobs.limits import keeper
from jobs.registry import tasks
from jobs.worker.board import Board, key
from jobs.worker.claim import admission
from jobs.worker.claim.admission import Overrides
from jobs.worker.claim.holding import Holding
from jobs.worker.loops import AWAY, BROKER, DATABASE, Backoff, vital
from jobs.worker.machine import own_memory
from jobs.worker.record.outcome import Delivery, Run, each, weighed
from jobs.worker.record.recorder import Recorder
from jobs.worker.run.isolation import Care
from jobs.worker.run.runners import AHEAD, Runner, Runners

log = logging.getLogger("jobs.worker")

#: While most messages of the claims end without running, the least size of a claim grows, up to
#: this: the few that do run must not wait behind many.
_LEAST_CAP = 100

#: While one kind of runner is busy, the child claims for the other and gives back what it can't
#: run. The shortest and the longest pause between two such claims, in seconds.
_PAUSES = (0.05, 0.5)
#: Such a pause also lasts at least so many times as long as the claim took.
_REST = 8
#: Most messages of one such claim.
_FARTHEST = 5000

#: With ``burst``, what is due within so many seconds counts as waiting: an attempt that is to be
#: made at once is due in the next whole millisecond, by the server's clock and not by this one.
_AT_ONCE = 0.01
#: Seconds after which a burst that has run everything asks again whether all is recorded.
_RECORDED = 0.005

#: Seconds for which the consumer of an idle child leaves the interpreter to the runner that it has
#: woken.
_YIELD = 0.0001

#: Seconds before a call is due from which on the connection to the ledger is opened for it, and
#: until another try.
_OPEN_BEFORE, _OPEN_AGAIN = 60.0, 60.0

#: Seconds until a queue that the broker refused is asked again.
_ASK_AGAIN = 1.0
#: The longest pause, in seconds, while the broker is away, or while a part of it is: a new master
#: serves within a second of its election.
_PAUSE, _PARTLY = 0.5, 0.5

#: A consumer looks at how many shards its queues have once in so many times `POLL_SECONDS`.
_SHARDS = 2

#: While anything runs: seconds until queues are asked of which it doesn't show from outside whether
#: they have something to claim.
_LOOK_AGAIN = 1.0


class Order:
    """The order in which a consumer asks its queues. Without weights it never changes: the second
    queue is asked when the first is empty.

    With weights, each queue that has messages gets its share of the claims. Each queue has a mark,
    a number, and the one with the lowest mark is asked first. A claim raises the mark by the
    number of messages asked for, divided by the weight. So every queue has its turn, whatever its
    weight, and an empty queue is asked again as late as if it had given all it was asked for.
    """

    def __init__(self, queues: Sequence[str], weights: Sequence[int]) -> None:
        """``weights``: one for each queue, or none at all."""
        self.queues = queues
        self._weights = dict(zip(queues, weights, strict=True)) if weights else {}
        self._marks = dict.fromkeys(self._weights, 0.0)
        #: The highest mark of a queue that gave all it was asked for, before that claim.
        self._now = 0.0

    def next(self) -> Sequence[str]:
        """The queues, in the order of the next pass."""
        if not self._weights:
            return self.queues
        return sorted(self._marks, key=self._marks.__getitem__)  # equal ones: as they were given

    def use(self, queues: Sequence[str]) -> None:
        """Ask these queues from now on. New ones have a weight of 1, and begin like one that was
        empty."""
        self.queues = queues
        if self._weights:
            self._weights = {queue: self._weights.get(queue, 1) for queue in queues}
            self._marks = {queue: self._marks.get(queue, self._now) for queue in queues}

    def asked(self, queue: str, count: int, *, got: int) -> None:
        """Note that a queue was asked for so many messages, and gave so many."""
        if not self._weights:
            return
        step = count / self._weights[queue]
        if got < count:
            # It is empty now. It neither saves up while it is empty, nor owes what it got while
            # the other queues had nothing.
            self._marks[queue] = self._now + step
        else:
            self._now = max(self._now, self._marks[queue])
            self._marks[queue] += step

    def woke(self, queue: str) -> None:
        """Note that a queue that wasn't asked for a while, since it was empty, has messages."""
        if self._weights:
            self._marks[queue] = max(self._marks[queue], self._now)


class Gathering:
    """Calls of batch tasks that wait for others of their task. Times are monotonic seconds."""

    def __init__(self, most: int) -> None:
        """``most``: calls of one batch that the board has places for."""
        self._most = most
        #: Whether any task takes many calls at once.
        self.wanted = any(task.batch for task in tasks.values())
        #: Task → the calls that wait, and until when they do.
        self._held: dict[str, list[Delivery]] = {}
        self._ends: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Hold calls of batches. Returns what is to run now: other calls, and each full batch as
        one delivery."""
        ready = []
        for delivery in deliveries:
            task = delivery.task
            # A call whose process died runs by itself, so that the next death shows whose fault
            # it is.
            if not task.batch or delivery.message.marks.crashes:
                ready.append(delivery)
                continue
            held = self._held.setdefault(task.name, [])
            held.append(delivery)
            self._ends.setdefault(task.name, now + task.options.batch_wait)
            if len(held) == self._full(delivery):
                ready.append(self._take(task.name))
        return ready

    def due(self, now: float) -> list[Delivery]:
        """The batches that have waited long enough."""
        return [self._take(name) for name, ends in list(self._ends.items()) if ends <= now]

    def wait(self, now: float) -> float:
        """Seconds until the first batch is due; there must be one."""
        return max(0.0, min(self._ends.values()) - now)

    def missing(self) -> int:
        """How many calls would fill the batch that lacks the most."""
        return max((self._full(held[0]) - len(held) for held in self._held.values()), default=0)

    @property
    def held(self) -> list[Delivery]:
        return [delivery for held in self._held.values() for delivery in held]

    def take_back(self) -> list[Delivery]:
        return [self._take(name) for name in list(self._held)]

    def _full(self, delivery: Delivery) -> int:
        return min(delivery.task.batch, self._most)

    def _take(self, name: str) -> Delivery:
        del self._ends[name]
        first, *others = self._held.pop(name)
        return replace(first, others=tuple(others))


class Quarantine:
    """Messages that were running when a process died: each runs with nothing beside it.

    When several ran in one process, nobody knows which of them ended it. When each runs alone, the
    next death shows it, and the others are not given up with it. While any message waits here the
    child claims nothing; what it already runs goes on.
    """

    def __init__(self, runners: Runners) -> None:
        self._runners = runners
        self.held: deque[Delivery] = deque()
        #: One of them was started, and nothing since.
        self._alone = False

    @functools.cached_property
    def _needless(self) -> bool:
        """Whether one task runs at a time: then each is alone as it is."""
        return sum(runner.width for runner in self._runners if runner.wanted) == 1

    def hold(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Hold those whose process died; the others are returned."""
        if self._needless:
            return deliveries
        self.held += [d for d in deliveries if d.message.marks.crashes]
        return [d for d in deliveries if not d.message.marks.crashes]

    @property
    def busy(self) -> bool:
        """Whether one waits or runs, so that nothing may be put beside it."""
        if self._alone and all(runner.idle for runner in self._runners):
            self._alone = False
        return self._alone or bool(self.held)

    def step(self) -> None:
        """Run the next one, if nothing else runs."""
        if self.held and all(runner.idle for runner in self._runners):
            delivery = self.held.popleft()
            self._alone = True
            self._runners.of(delivery).submit([delivery])

    def take_back(self) -> list[Delivery]:
        taken = list(self.held)
        self.held.clear()
        return taken


class ClaimSize:
    """How many messages to claim: about as many as the runners finish in `runners.AHEAD` seconds.

    A claim can't tell synchronous calls from ``async def`` ones. When all runners of one kind are
    busy, the child searches for calls of the other kind behind them: each claim reaches farther
    than the one before, and the child pauses between them while they bring little.
    """

    def __init__(self, runners: Runners, recorder: Recorder, gathering: Gathering) -> None:
        self._runners = runners
        self._recorder = recorder
        self._gathering = gathering
        #: The size of the last claim that brought anything; the next is twice as large at most.
        self.last = 1
        #: Runners whose calls had to be given back: keep none until they have a free place.
        self._full: list[Runner] = []
        #: When to search next (monotonic), at least how far, and the pause after that.
        self._search_at = 0.0
        self._reach = 1
        self._pause = 0.0
        #: Claim at least so many: most of the last claim ended without running.
        self._least = 0

    def room(self) -> int:
        """How many messages to claim now."""
        if self._recorder.full:
            return 0
        self._full = [runner for runner in self._full if runner.busy >= runner.width]
        if self._full and self.until_search() > 0.0:
            return 0
        most, missing = 2 * self.last, self._gathering.missing()
        able = (runner for runner in self._runners if runner not in self._full)
        room = max(runner.room(most, missing) for runner in able)
        return max(room, self._reach if self._full else self._least) if room > 0 else 0

    @property
    def searching(self) -> bool:
        return bool(self._full)

    def full(self, delivery: Delivery) -> bool:
        """Whether its runner has no free place."""
        return bool(self._full) and self._runners.of(delivery) in self._full

    def came_back(self, runner: Runner) -> None:
        """Note that a call had to be given back, since this runner has no free place."""
        if not self._full:
            # Not at once: a place may be free in a moment.
            self._pause, self._reach = _PAUSES[0], 1
            self._search_at = time.monotonic() + self._pause
        if runner not in self._full:
            self._full.append(runner)

    def searched(self, began: float, *, kept: int, returned: int) -> None:
        """Note what a search brought: calls that were kept, and others that go back."""
        now = time.monotonic()
        if returned <= 4 * kept:
            self._pause, self._reach = 0.0, 1
        else:
            self._pause = min(_PAUSES[1], max(_PAUSES[0], 2 * self._pause))
            self._reach = min(_FARTHEST, 4 * self._reach)
        self._search_at = now + max(self._pause, _REST * (now - began) if returned else 0.0)

    def until_search(self) -> float:
        """Seconds until the next search; infinity when there is none to come."""
        if not self._full or all(one in self._full for one in self._runners if one.wanted):
            return float("inf")
        return max(0.0, self._search_at - time.monotonic())

    def learn(self, *, run: int, ended: int) -> None:
        """Note how many of a claim are to run, and how many have ended without running."""
        self._least = min(_LEAST_CAP, 2 * ended) if ended > 3 * run else 0


class Idling:
    """How long to wait when there is nothing to claim, or nobody to run it."""

    def __init__(self, runners: Runners, gathering: Gathering, poll: float, *, burst: bool) -> None:
        """``poll``: seconds after which an idle consumer looks at its queues without a bell."""
        self._runners = runners
        self._gathering = gathering
        self.poll = poll
        self._burst = burst

    @property
    def idle(self) -> bool:
        """Whether nothing that was claimed waits or runs."""
        return not self._gathering and all(runner.idle for runner in self._runners)

    @property
    def holds(self) -> bool:
        """Whether something was claimed and is not started."""
        return bool(self._gathering) or any(runner.unstarted for runner in self._runners)

    @property
    def taken(self) -> bool:
        """Whether a call that came now would have to wait for others here."""
        return all(
            runner.busy + len(runner.unstarted) >= runner.width
            for runner in self._runners
            if runner.wanted
        )

    @property
    def patience(self) -> float:
        """Seconds after which to look whether what waits here has to go back."""
        return min(runner.patience for runner in self._runners)

    def for_runner(self) -> float:
        """Seconds to wait for a free runner."""
        if any(runner.unstarted for runner in self._runners):
            return self.patience
        # What is gathered doesn't go back.
        return min(1.0, self._gathering.wait(time.monotonic())) if self._gathering else 1.0

    def for_bell(self, until: float) -> float:
        """Seconds to wait for a bell. ``until``: those until a queue is to be asked without one."""
        idle = self.idle
        # What runs may be revoked meanwhile.
        timeout = self.poll if idle else min(self.poll, 1.0)
        if any(runner.unstarted for runner in self._runners):
            timeout = self.patience
        if self._burst:
            # With nothing running, only the recorder has to finish before a burst is over.
            timeout = min(timeout, _RECORDED if idle else AHEAD)
        timeout = min(timeout, until)
        if self._gathering:
            timeout = min(timeout, self._gathering.wait(time.monotonic()))
        return timeout


class Cursor:
    """How far this consumer has come with one shard of a queue; most queues have one."""

    def __init__(self, queue: str, shard: str) -> None:
        self.queue = queue
        self.shard = shard
        #: Whether unsigned messages are trusted.
        self.open = conf.get().queue(queue).open
        #: The number of the next delivery. A claim whose answer was lost is repeated with it.
        self.number = 1
        #: While the broker refuses this queue, or its node is away: when to ask again (monotonic).
        #: 0.0: it can be asked.
        self.out_until = 0.0
        #: Whether its node is away, and others may not be.
        self.away = False
        #: Whether it may have messages. One that gave less than it was asked for is empty, and is
        #: asked no more until something shows from outside that this has changed.
        self.awake = True
        #: When its next message is due, as its last claim said (monotonic); infinity: never.
        self.due = math.inf
        #: Whether it was paused then.
        self.paused = False
        #: Whether nothing more is to be claimed from it. What was claimed goes on.
        self.given_up = False

    def wanted(self, now: float) -> bool:
        """Whether to ask it (``now``: monotonic)."""
        return self.out_until <= now and (self.awake or self.due <= now)


class Shards:
    """The cursors of one queue, which take turns."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._cursors: deque[Cursor] = deque()

    def grow(self, names: Sequence[str]) -> list[Cursor]:
        """Add the shards of these names that are new. One that is no longer among them stays: this
        consumer may hold messages of it."""
        known = {cursor.shard for cursor in self._cursors}
        new = [Cursor(self.queue, name) for name in names if name not in known]
        self._cursors += new
        # Consumers begin at different shards, so that they don't all wait for one node.
        if len(self._cursors) > 1:
            self._cursors.rotate(random.randrange(len(self._cursors)))  # noqa: S311
        return new

    def in_turn(self) -> Iterator[Cursor]:
        """All of them. The next time begins behind the last one that was taken from here."""
        for _ in range(len(self._cursors)):
            cursor = self._cursors[0]
            self._cursors.rotate(-1)
            yield cursor


class Consumer:
    def __init__(
        self,
        name: str,
        order: Order,
        runners: Runners,
        recorder: Recorder,
        board: Board,
        *,
        burst: bool,
        stop: Callable[[], None],
        most_memory: int = 0,
    ) -> None:
        """``most_memory``: bytes beyond which this child is replaced after a call; 0: never.
        ``stop``: called when, with ``burst``, the queues are empty, or when this child has run as
        many tasks as it may, or takes too much memory."""
        self.name = name
        self._order = order
        self._shards = {queue: Shards(queue) for queue in order.queues}
        #: Shard → its cursor.
        self._cursors: dict[str, Cursor] = {}
        #: The queues that it was started with, and `Board.changes` when they last were changed.
        self._first, self._changes = order.queues, 0
        for queue, shards in self._shards.items():
            self._cursors |= {cursor.shard: cursor for cursor in shards.grow([queue])}
        #: When to look at how many shards there are (monotonic); 0.0: it hasn't looked yet.
        self._grow_at = 0.0
        self._runners = runners
        self._recorder = recorder
        self._board = board
        self._burst = burst
        self._most_memory = most_memory
        self._stop = stop
        self._conf = conf.get()
        #: Whether empty queues are left alone. The only queue is asked together with its bell, and
        #: a burst ends when it has asked all of them.
        self._lets_sleep = len(self._cursors) > 1 and not burst
        for cursor in self._cursors.values():
            cursor.awake = not self._lets_sleep
        #: A bell rang: its queue is asked before anything else is looked at.
        self._rang = False
        #: When to ask queues of which it doesn't show from outside whether they have something
        #: (monotonic).
        self._look_at = 0.0
        #: The only queue was just seen to be empty: whatever comes from then on rings the bell.
        self._empty = False
        #: All queues were empty when they were last asked.
        self._drained = False
        self._quarantine = Quarantine(runners)
        self._gathering = Gathering(runners.sync.batch)
        self._size = ClaimSize(runners, recorder, self._gathering)
        poll = self._conf.poll_seconds
        if any(self._conf.queue(queue).open for queue in order.queues):
            poll = min(poll, 1.0)
        self._idling = Idling(runners, self._gathering, poll, burst=burst)
        self._overrides = Overrides()
        #: When the connection to the ledger may be opened before a call needs it (monotonic).
        self._open_at = 0.0
        #: On their way back to their queues: they stay here until the broker has them.
        self._returning: list[Delivery] = []
        #: When to look for revocations of what runs, and for losses of the broker (monotonic).
        self._next_look = 0.0
        #: How often the broker may have lost messages, when they were last held again.
        self._losses = board.losses
        self._holding = Holding(name, self._here, recorder)
        self._patience = Backoff(
            log,
            f"{name}: the {{what}} is away; trying again",
            f"{name}: the {{what}} is back",
            longest=_PAUSE,
        )
        #: The same of a part of the broker.
        self._partly = Backoff(
            log,
            f"{name}: a part of the {{what}} is away; its queues wait, the others go on",
            f"{name}: all of the {{what}} is back",
            longest=_PARTLY,
        )
        #: Whether the broker has answered during this step.
        self._answered = False
        self._stopping = False
        #: How many calls had ended when the memory was last measured.
        self._measured = 0
        #: Whether this child stops only to be replaced by another.
        self.spent = False
        self.waiting = False
        self._care = Care()
        self._thread = threading.Thread(target=vital(self.run), name="jobs-consumer", daemon=True)

    # ------------------------------------------------------------------ the loop

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Claim nothing more; safe in a signal handler."""
        self._stopping = True

    def join(self) -> None:
        """Return when nothing can be claimed any more.

        A consumer that is waiting holds no messages, and sees that it should stop before it does
        anything else: the process may end under it.
        """
        while self._thread.is_alive() and not self.waiting:
            self._thread.join(0.02)  # ended by this thread's end; nobody tells of `waiting`

    @property
    def shards(self) -> list[str]:
        """The shards that it claims from."""
        return list(self._cursors)

    def run(self) -> None:
        # A node of a Cluster that doesn't answer must not hold up the queues of the others.
        with broker.get().passing_over():
            self._run()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.step()
            except AWAY as error:
                connections.close_all()
                pause = self._patience.away(error)
                self.waiting = True
                time.sleep(pause)  # ended by time: nobody tells when a server is back
                self.waiting = False
            else:
                # Only after a whole step: a broker that lets claim but not wait is not back.
                if self._answered and self._patience.missing == BROKER:
                    self._patience.back()
        try:
            self._return(self._unstarted())
        except BrokerUnavailable as error:
            text = "%s: the broker is away; the supervisor gives back what this child holds: %s"
            log.warning(text, self.name, error)
        self._overrides.end()
        connections.close_all()
        broker.get().close()

    def step(self) -> None:
        """Claim once, or wait for a reason to."""
        self._answered = False
        if self._returning:
            self._return()
        if self._board.changes != self._changes:
            self._change_queues()
        if (now := time.monotonic()) >= self._grow_at:
            self._grow()
            self._grow_at = now + _SHARDS * self._conf.poll_seconds
        if self._patience.missing == DATABASE:
            # Claim nothing while the ledger can't be asked about it: it would only come back.
            ledger.ended([""])
            self._patience.back()
        finished = sum(runner.finished for runner in self._runners)
        self._board.set_ready(finished, self._recorder.failed)
        if self._is_spent(finished):
            self.spent = True
            self._stop()
            return
        for runner in self._runners:
            if runner.unstarted and runner.overrun():
                self._size.came_back(runner)  # what would be claimed now would come back, too
                self._return(runner.take_back())
        if self._board.quiet and (unstarted := self._unstarted()):
            self._return(unstarted)
        self._quarantine.step()
        if self._gathering:
            self._submit(self._gathering.due(time.monotonic()))
        room = self._room()
        if room > 0:
            self._overrides.look(time.monotonic())
            # Asked before the claim: what just ends may send more.
            over = self._burst and self._idling.idle and self._recorder.idle
            if not self._empty and self._claim(room):
                return
            over = over and not any(cursor.away for cursor in self._served())
            if over and self._until_due() > _AT_ONCE:
                self._stop()
                return
            self._note_drained(True)
            if not self._idling.taken:
                self._wait(room)
        else:
            # By then, others may have taken the bells of what is there.
            self._empty = self._rang = False
            self._recorder.freed.clear()
            if self._room() <= 0:  # Check again: a runner may have become free before clear().
                # Ended by a runner that is idle or has little left to do, by the event loop after
                # each task, and by the recorder when it is no longer full. The time limit is for
                # what no other thread can tell: tasks that take long, revocations, and the end of
                # the child, since a signal handler may not set an event.
                # A search that may begin now has no place for what it would find.
                search = max(_PAUSES[0], self._size.until_search())
                self._recorder.freed.wait(min(self._idling.for_runner(), search))
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            try:
                self._hold_again()
            except BrokerUnavailable as error:
                if not (error.partly and len(self._cursors) > 1):
                    raise
                # What is away has lost nothing that can be put back now: the next look does that.
                log.debug("%s: can't look for what the broker has lost: %s", self.name, error)
            self._terminate_revoked(now)

    def _is_spent(self, finished: int) -> bool:
        """Whether this child is to be replaced, after it has run so many calls."""
        if 0 < self._conf.max_tasks_per_child <= finished:
            return True
        # Only after a call: one that is too large from its start runs one call, like any other.
        if not self._most_memory or finished == self._measured:
            return False
        self._measured = finished
        memory = own_memory()
        if memory > self._most_memory:
            log.info(
                "child %s has %s KB in memory, more than %s, and is replaced",
                self.name,
                f"{memory // 1024:,}",
                f"{self._most_memory // 1024:,}",
            )
        return memory > self._most_memory

    def _unstarted(self) -> list[Delivery]:
        """Take back claimed messages that nothing runs yet."""
        held = (*self._runners, self._quarantine, self._gathering)
        return [delivery for holder in held for delivery in holder.take_back()]

    def _room(self) -> int:
        """How many messages to claim now."""
        if self._quarantine.busy or self._board.quiet:
            return 0
        # What comes to an empty queue is for a child that can begin it at once: here it might wait
        # for a long call to end. So a child that can't neither claims it nor hears the bell.
        return 0 if self._drained and self._idling.taken else self._size.room()

    def _note_drained(self, drained: bool) -> None:
        if drained != self._drained:
            self._drained = drained
            for runner in self._runners:
                runner.drained = drained

    # ------------------------------------------------------------------ claiming

    def _change_queues(self) -> None:
        """Take on and give up the queues that the supervisor has named. What was claimed and isn't
        started goes back."""
        said = self._board.queues()
        if said is None:
            return  # the next step finds it written
        self._changes, added, given_up = said
        for queue in added:
            self._shards.setdefault(queue, Shards(queue))
            if self._conf.queue(queue).open:
                self._idling.poll = min(self._idling.poll, 1.0)
        self._order.use([one for one in (*self._first, *added) if one not in given_up])
        for cursor in self._cursors.values():
            cursor.given_up = cursor.queue not in self._order.queues
            cursor.awake = True
        self._add({queue: [queue] for queue in added})
        self._grow_at, self._empty = 0.0, False
        self._returning += each(self._unstarted())  # the next step returns them

    def _served(self) -> Iterator[Cursor]:
        """The shards that it claims from."""
        return (cursor for cursor in self._cursors.values() if not cursor.given_up)

    def _grow(self) -> None:
        """Find out which shards the queues have."""
        new = self._add(broker.get().all_shards(list(self._order.queues)))
        if new and self._grow_at:
            said = ", ".join(shown(cursor.shard) for cursor in new)
            log.warning("%s: claims from new shards of its queues: %s", self.name, said)

    def _add(self, names: Mapping[str, Sequence[str]]) -> list[Cursor]:
        """Claim from these shards of the queues as well; those that are new."""
        new = [cursor for queue, some in names.items() for cursor in self._shards[queue].grow(some)]
        if not new:
            return []
        self._cursors |= {cursor.shard: cursor for cursor in new}
        self._lets_sleep = len(self._cursors) > 1 and not self._burst
        self._empty = False
        for cursor in new:
            cursor.awake = not self._lets_sleep
        return new

    def _claim(self, room: int) -> bool:
        """Claim from one queue after the other. Returns whether to claim again before waiting."""
        claimed, kept, again = 0, 0, False
        searching, began = self._size.searching, time.monotonic()
        if self._lets_sleep:
            self._rouse(began)
        for queue in self._order.next():
            wanted_of_it, got, asked = room - kept, 0, False
            for cursor in self._shards[queue].in_turn():
                if not cursor.wanted(began) or self._recorder.stuck(cursor.shard):
                    continue
                try:
                    while True:
                        wanted, lease = room - kept, self._conf.lease_seconds
                        shard, number = cursor.shard, cursor.number
                        claim = broker.get().claim(shard, self.name, number, wanted, lease)
                        asked = True
                        again |= claim.resume is not None
                        count = len(claim.messages)
                        # A search gives back what it can't use, so that it doesn't stay empty.
                        cursor.awake = count == wanted or searching or not self._lets_sleep
                        claimed += count
                        got += count
                        kept += self._take(cursor, claim)
                        # What goes back is held until the search is over, so that the next claim
                        # reaches what stands behind it.
                        if not (searching and count) or kept or claimed >= room:
                            break
                except BrokerUnavailable as error:
                    self._leave_out(cursor, error)
                else:
                    if cursor.out_until:
                        self._take_in(cursor)
                if kept >= room:
                    break
            if asked:
                self._order.asked(queue, wanted_of_it, got=got)
            if kept >= room:
                break
        if searching:
            returned = len(self._returning)
            self._return()
            self._size.searched(began, kept=kept, returned=returned)
        elif claimed:
            self._size.last = claimed
        if claimed:
            self._note_drained(False)
        return again or claimed > 0

    def _rouse(self, now: float) -> None:
        """Find out which of the queues that were empty are to be asked again (``now``: monotonic).

        That takes one command, however many they are. It doesn't show whether a paused queue goes
        on, nor whether an earlier message has joined those that are due later, if another consumer
        has heard the bell. So such queues are asked now and then.
        """
        if self._rang:
            self._rang = False
            return
        asleep = [one for one in self._served() if not (one.awake or one.out_until)]
        if now >= self._look_at:
            poll = self._idling.poll
            self._look_at = now + (poll if self._idling.idle else min(_LOOK_AGAIN, poll))
            for cursor in asleep:
                if cursor.paused or cursor.due < math.inf:
                    self._wake(cursor)
        asked = [one for one in asleep if not (one.awake or one.paused)]
        if asked:
            due = {one.shard for one in asked if one.due == math.inf}
            try:
                for shard in broker.get().stirring([one.shard for one in asked], due):
                    self._wake(self._cursors[shard])
                self._answered = True
            except BrokerUnavailable as error:
                if not error.partly:
                    raise
                for cursor in asked:  # each by itself: then it shows whose node is away
                    self._wake(cursor)

    def _wake(self, cursor: Cursor) -> None:
        cursor.awake = True
        self._order.woke(cursor.queue)

    def _until_due(self) -> float:
        """Seconds until the next message is due that could be claimed then; infinity: none is
        known."""
        open_ = [
            one.due
            for one in self._served()
            if not (one.out_until or self._recorder.stuck(one.shard))
        ]
        return max(0.0, min(open_, default=math.inf) - time.monotonic())

    def _leave_out(self, cursor: Cursor, error: BrokerUnavailable) -> None:
        """Leave out, for a while, a queue that the broker refuses or whose node is away, if there
        are others; else raise the error."""
        refused = isinstance(error, QueueRefused)
        if len(self._cursors) == 1 or not (refused or error.partly):
            raise error
        if refused:
            if not cursor.out_until:
                text = "%s: queue %s is left out until the broker accepts it again: %s"
                log.error(text, self.name, shown(cursor.shard), error)
            pause = _ASK_AGAIN
            self._answered = True
        else:
            pause = self._partly.away(error)
        cursor.away = not refused
        cursor.out_until = time.monotonic() + pause
        cursor.awake = True  # asked then
        if all(one.away for one in self._served()):
            raise error

    def _take_in(self, cursor: Cursor) -> None:
        """Note that a queue that was left out can be asked again."""
        cursor.out_until = 0.0
        if not cursor.away:
            log.warning("%s: queue %s can be used again", self.name, shown(cursor.shard))
        cursor.away = False
        if self._partly.missing and not any(one.away for one in self._served()):
            self._partly.back()

    def _take(self, cursor: Cursor, claim: Claim) -> int:
        """Run or end the claimed messages. Returns how many of them didn't go back at once."""
        self._answered = True
        kept = len(claim.messages)
        cursor.number = claim.resume or cursor.number + kept
        now, claimed = time.time(), time.monotonic()
        cursor.due = math.inf if claim.next_due is None else claimed + claim.next_due
        cursor.paused = claim.paused
        if not claim.messages:
            return 0
        run, searching = Run(self.name, now), self._size.searching
        deliveries: list[Delivery] = []
        for number, raw in claim.messages:
            # By position, which takes a tenth of the time.
            one = admission.prepare(cursor.shard, number, raw, self.name, now, claimed, cursor.open)
            if not isinstance(one, Delivery):
                self._recorder.add(weighed(replace(one, claimed=claimed)))
            elif searching and self._size.full(one):
                # Before it is given a permit or a slot, which it would only have to give back.
                self._returning.append(one)
                kept -= 1
            else:
                deliveries.append(one)
        try:
            answer = admission.admit(cursor.shard, claim, deliveries, run, self._ids_here)
        except DatabaseError:
            self._return(deliveries)
            raise
        except BrokerUnavailable:
            self._returning += deliveries
            raise
        idle = self._idling.idle
        deliveries = self._quarantine.hold(answer.deliveries)
        if self._gathering.wanted:
            deliveries = self._gathering.add(deliveries, claimed)
        if cursor.given_up:
            self._returning += each(deliveries)
        else:
            self._submit(deliveries)
        if idle and deliveries:
            # The runner has been woken, and now needs the interpreter. It would get it when this
            # thread waits next, a tenth of a millisecond of code later.
            time.sleep(_YIELD)
        for outcome in answer.outcomes:
            self._recorder.add(weighed(outcome))
        self._size.learn(run=len(answer.deliveries), ended=len(answer.outcomes))
        self._care.between_tasks(time.monotonic())
        return kept

    def _ids_here(self) -> set[str]:
        """The calls that were claimed before and aren't recorded yet. Read in the order in which
        they pass through this process, so that none is missed on its way."""
        return {one.message.id for one in self._here()} | self._recorder.waiting()

    def _here(self) -> list[Delivery]:
        """What was claimed and has no outcome yet."""
        held = [*self._returning, *self._quarantine.held, *self._gathering.held]
        for runner in self._runners:
            held += list(runner.unstarted)
            held += runner.running.copy().values()
        return each(held)

    def _submit(self, deliveries: list[Delivery]) -> None:
        """Hand deliveries to the runners of their kind, and return what these can't use."""
        if self._board.quiet:  # this child has waited for a bell, and claimed with it
            self._return(deliveries)
            return
        back: list[Delivery] = []
        awaited = [d for d in deliveries if d.task.is_async]
        plain = [d for d in deliveries if not d.task.is_async] if awaited else deliveries
        for runner, mine in ((self._runners.sync, plain), (self._runners.loop, awaited)):
            if mine and (left := runner.submit(mine)):
                self._size.came_back(runner)
                back += left
        if back:
            self._return(back)  # last: should the broker be away, the others run all the same

    def _return(self, deliveries: Sequence[Delivery] = ()) -> None:
        """Return these to their queues, with all that is on its way back already."""
        self._returning += each(deliveries)
        by_queue: dict[str, list[Returned]] = {}
        for d in self._returning:
            form = admission.unstarted(d)
            by_queue.setdefault(d.queue, []).append(Returned(d.number, d.message.priority, form))
        # First: another worker that gets them takes their slots under the same names.
        if slots := [slot for d in self._returning for slot in d.slots]:
            keeper.free(slots)
        stay = set()
        for queue, some in by_queue.items():
            self._cursors[queue].awake = True
            try:
                broker.get().release(queue, self.name, some)
            except BrokerUnavailable as error:
                self._leave_out(self._cursors[queue], error)
                stay.add(queue)
            else:
                self._answered = True
        # Had the broker been away, all would have stayed for the next step to try again.
        returned = [d for d in self._returning if d.queue not in stay]
        self._returning = [d for d in self._returning if d.queue in stay]
        admission.return_permits(returned)

    # ------------------------------------------------------------------ idling

    def _wait(self, room: int) -> None:
        """Wait for a bell, or until something else is to be done. With one queue, claim what the
        bell rang for in the same round trip."""
        until = self._until_due()
        if until < _OPEN_BEFORE and self._idling.idle:
            self._open_ledger()
        if self._lets_sleep:
            until = min(until, max(0.0, self._look_at - time.monotonic()))
        # While a server is away, only learn whether waiting works again.
        timeout = 0.0 if self._patience.missing else self._idling.for_bell(until)
        # While this is true, `join` lets the process end without waiting for this thread. So it
        # must be false while there is something that this thread would have to give back.
        self.waiting = not self._idling.holds
        try:
            if self._stopping:
                return
            if len(self._cursors) > 1 or self._burst:
                served = list(self._served())
                queues = [c.shard for c in served if not c.out_until]
                if len(queues) < len(served):
                    until = min(c.out_until for c in served if c.out_until)
                    timeout = min(timeout, max(0.0, until - time.monotonic()))
                # Ended by senders, who ring the bell. In a burst the recorder doesn't, so the
                # time limit is short.
                if queues:
                    rang = broker.get().wait(queues, timeout)
                    if self._partly.missing and len(queues) == len(served):
                        self._partly.back()
                    if rang is not None and self._lets_sleep:
                        self._rang = True
                        self._wake(self._cursors[rang])
                else:
                    time.sleep(timeout)
                return
            # A third of the way from `delay` to the task is saved by this.
            self._empty = False
            (cursor,) = self._cursors.values()
            # Ended by senders, who ring the bell.
            claim = broker.get().wait_and_claim(
                cursor.shard, self.name, cursor.number, room, self._conf.lease_seconds, timeout
            )
        except QueueRefused as error:
            if len(self._cursors) == 1:
                raise
            # The broker refuses one of the bells, or to wait at all: ask the queues now and then.
            log.debug("%s: can't wait for the bells: %s", self.name, error)
            time.sleep(min(timeout, _ASK_AGAIN))
            return
        except BrokerUnavailable as error:
            if len(self._cursors) == 1 or not error.partly:
                raise
            # The next step finds out whose node is away.
            for cursor in self._served():
                if not cursor.out_until:
                    self._wake(cursor)
            time.sleep(self._partly.away(error))
            return
        finally:
            self.waiting = False
        if self._board.changes != self._changes:
            self._change_queues()  # it may have given up the one that it waited for
        self._take(cursor, claim)
        # It gave less than was asked for: to claim again at once would bring nothing, and only
        # compete with the task that was handed over just now. (Foreign senders ring no bell.)
        short = len(claim.messages) < min(room, CLAIM_MOST)
        if not short:
            self._note_drained(False)
        alone = len(self._cursors) == 1  # it may have taken on another meanwhile
        self._empty = (
            short and alone and claim.resume is None and not (cursor.open and claim.messages)
        )
        self._size.last = len(claim.messages) or self._size.last
        if self._size.searching and self._returning:
            self._return()

    def _open_ledger(self) -> None:
        """Open the connection by which calls that become due are looked up, if Django keeps it.

        To open it takes ten times as long as the question, and the call would begin so much later.
        """
        connection, now = connections[ledger.alias()], time.monotonic()
        kept = connection.settings_dict["CONN_MAX_AGE"] != 0
        if connection.connection is None and kept and now >= self._open_at:
            self._open_at = now + _OPEN_AGAIN
            with contextlib.suppress(DatabaseError):  # whoever needs it says that it is away
                ledger.ended([""])

    def _hold_again(self) -> None:
        """Put what is held here back into flight, if the broker may have lost it, and give back
        what is in flight there and no longer here."""
        self._holding.settle()
        following = {queue: one.number for queue, one in self._cursors.items()}
        self._holding.return_strays(following)
        losses = self._board.losses
        if losses == self._losses:
            return
        self._holding.hold_again(following)
        self._losses = losses
        for cursor in self._cursors.values():
            cursor.awake = True  # what it knows of the queue may be gone

    def _terminate_revoked(self, now: float) -> None:
        """Have this process killed if it runs a task that is to be terminated (``now``:
        monotonic)."""
        running = [d for runner in self._runners for d in each(runner.running.copy().values())]
        for queue, cursor in self._cursors.items():
            mine = [d for d in running if d.queue == queue]
            if not mine:
                continue
            try:
                said = admission.revocations(queue, mine)
            except BrokerUnavailable as error:
                self._leave_out(cursor, error)
                continue
            self._answered = True
            for delivery, revocation in zip(mine, said, strict=True):
                if revocation is Revocation.TERMINATE:
                    self._board.condemn(key(queue, delivery.number), now)
