"""One child's claims: as much as its runners can use, and back what they can't.

`step` is the loop's body; `run` repeats it in a thread of its own, so that a long task in the
main thread holds up neither claims for the event loop nor the return of what waits behind it.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from django.db import Error as DatabaseError
from django.db import connections

from jobs import broker, conf, ledger
from jobs.broker.base import Claim, Returned, Revocation
from jobs.exceptions import BrokerUnavailable, QueueRefused
from jobs.ledger.refusals import is_refusal
from jobs.registry import tasks
from jobs.worker.board import Board, key
from jobs.worker.claim import admission
from jobs.worker.claim.admission import Answer, Overrides
from jobs.worker.loops import (
    AWAY,
    BROKER,
    DATABASE,
    Patience,
    vital,
)
from jobs.worker.record.outcome import (
    Delivery,
    Outcome,
    each,
)
from jobs.worker.record.recorder import FULL, Recorder
from jobs.worker.record.rows import Run
from jobs.worker.run.database import Care
from jobs.worker.run.loop import AsyncRunner
from jobs.worker.run.threads import AHEAD, MOST, SyncRunners


class Order(ABC):
    @abstractmethod
    def next(self) -> Sequence[str]:
        """The queues, in the order of the next pass."""

    @abstractmethod
    def asked(self, queue: str, count: int, *, got: int) -> None:
        """A queue was asked for so many messages, and gave so many."""


class Strict(Order):
    """Always the same: the second is asked when the first is empty."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._queues = queues

    def next(self) -> Sequence[str]:
        return self._queues

    def asked(self, queue: str, count: int, *, got: int) -> None:
        pass


class Weighted(Order):
    """Each queue that has messages gets its share of the claims, by weight.

    Each has a mark on a line, and the one that is least far comes first. What a queue was asked
    for, divided by its weight, moves it forward. So a queue of any weight has its turn, and one
    that was empty is asked again no sooner than if it had given everything.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._marks = dict.fromkeys(weights, 0.0)
        #: Where the line has come to: the mark of the last that gave all it was asked for.
        self._now = 0.0

    def next(self) -> Sequence[str]:
        return sorted(self._marks, key=self._marks.__getitem__)  # equal ones: as they were given

    def asked(self, queue: str, count: int, *, got: int) -> None:
        step = count / self._weights[queue]
        if got < count:
            # It has nothing left. Neither does it save up while it is empty, nor does it owe what
            # it got while nobody else had anything.
            self._marks[queue] = self._now + step
            return
        self._now = max(self._now, self._marks[queue])
        self._marks[queue] += step


def order_of(queues: Sequence[str], weights: Sequence[int]) -> Order:
    """``weights``: one for each queue; none at all: in strict order."""
    if not weights:
        return Strict(queues)
    return Weighted(dict(zip(queues, weights, strict=True)))


class Gathering:
    """One child's. Times are monotonic seconds."""

    def __init__(self, most: int) -> None:
        """``most``: calls of one batch that the board has places for."""
        self._most = most
        #: Whether there is any task that takes many at once.
        self.wanted = any(task.batch for task in tasks.values())
        #: Task → what waits to be run with others, and until when.
        self._held: dict[str, list[Delivery]] = {}
        self._ends: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """What is to be run now: what is in no batch, and a full one as one delivery."""
        ready = []
        for delivery in deliveries:
            # One whose process died is run by itself, so that the next death tells.
            if not delivery.task.batch or delivery.message.crashes:
                ready.append(delivery)
            elif self._hold(delivery, now) == self._full(delivery):
                ready.append(self._take(delivery.task.name))
        return ready

    def due(self, now: float) -> list[Delivery]:
        """The batches that have waited long enough."""
        return [self._take(name) for name, ends in list(self._ends.items()) if ends <= now]

    def wait(self, now: float) -> float:
        """Seconds until the first is due; there must be one."""
        return max(0.0, min(self._ends.values()) - now)

    def missing(self) -> int:
        """How many calls would fill the batch that needs the most."""
        return max((self._full(held[0]) - len(held) for held in self._held.values()), default=0)

    @property
    def held(self) -> list[Delivery]:
        return [delivery for held in self._held.values() for delivery in held]

    def take_back(self) -> list[Delivery]:
        return [self._take(name) for name in list(self._held)]

    def _hold(self, delivery: Delivery, now: float) -> int:
        held = self._held.setdefault(delivery.task.name, [])
        self._ends.setdefault(delivery.task.name, now + delivery.task.options.batch_wait)
        held.append(delivery)
        return len(held)

    def _full(self, delivery: Delivery) -> int:
        return min(delivery.task.batch, self._most)

    def _take(self, name: str) -> Delivery:
        del self._ends[name]
        first, *others = self._held.pop(name)
        return first._replace(others=tuple(others))


class Suspects:
    """One child's. While there is any it claims nothing; what it runs already goes on."""

    def __init__(self, sync: SyncRunners, loop: AsyncRunner) -> None:
        self._sync = sync
        self._async = loop
        self._held: deque[Delivery] = deque()
        #: What the count of finished synchronous tasks is when the one that runs alone has ended.
        self._finished = 0
        #: The one that runs alone is on the event loop.
        self._on_loop = False

    def hold(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Keep those that are suspect; the others are returned."""
        # Where one at a time is run, each is alone as it is.
        if self._sync.width == 1 and not self._async.wanted:
            return list(deliveries)
        deliveries = list(deliveries)
        self._held += [d for d in deliveries if d.message.crashes]
        return [d for d in deliveries if not d.message.crashes]

    @property
    def busy(self) -> bool:
        """Whether one waits or runs, so that nothing may be put beside it."""
        return bool(self._held) or self._runs()

    def _runs(self) -> bool:
        if self._async.running == 0:
            self._on_loop = False
        return self._on_loop or self._sync.finished < self._finished

    def step(self) -> None:
        """Run the next one, if nothing else runs."""
        if not self._held or self._runs():
            return
        if self._sync.busy or self._sync.unstarted or self._async.running:
            return
        delivery = self._held.popleft()
        if delivery.task.is_async:
            self._on_loop = True
            self._async.submit([delivery])
        else:
            self._finished = self._sync.finished + 1
            self._sync.submit([delivery])

    @property
    def held(self) -> list[Delivery]:
        return list(self._held)

    def take_back(self) -> list[Delivery]:
        taken = list(self._held)
        self._held.clear()
        return taken


#: Most of one claim while nearly nothing of it is run: what is must not wait long for the rest.
_AGAIN = 100

#: Pauses, in seconds, between two looks for calls of the one kind behind those of the other, which
#: are claimed and given back by them: the shortest, the longest, and at least so many times what
#: the look took.
_PAUSES = (0.05, 0.5)
_REST = 8
#: Most messages of one look.
_FARTHEST = 5000


class Appetite:
    def __init__(
        self, sync: SyncRunners, loop: AsyncRunner, recorder: Recorder, gathering: Gathering
    ) -> None:
        self._sync = sync
        self._async = loop
        self._recorder = recorder
        self._gathering = gathering
        #: How many the last claim brought that brought any.
        self.last_claim = 1
        #: A synchronous task had to be given back: claim none until a runner is free.
        self.sync_waits = False
        #: The same, of an ``async def`` task.
        self.async_waits = False
        #: When to look for what of the other kind waits behind them (monotonic), how far, and the
        #: pause after that.
        self._look_at = 0.0
        self._far = 1
        self._pause = 0.0
        #: How many to claim at least: of the last ones nearly none was run, and held up nobody.
        self._again = 0

    def room(self) -> int:
        """How many deliveries there is use for now."""
        if self._recorder.backlog > 4 * FULL or self._recorder.crowded:
            return 0  # it can't write: what is held already is enough to lose sleep over
        if self._sync.busy < self._sync.width:
            self.sync_waits = False
        if self._async.running < self._async.concurrency:
            self.async_waits = False
        if self.looking:
            return self._room_beside()
        room = max(self._sync_room(), self._async_room())
        return max(room, self._again) if room > 0 else 0

    @property
    def looking(self) -> bool:
        """Whether calls of one kind only are claimed: a claim can't tell them from the others,
        which go back."""
        return self.sync_waits or self.async_waits

    def _room_beside(self) -> int:
        """The same, while calls of one kind wait for a runner."""
        if (self.sync_waits and self.async_waits) or time.monotonic() < self._look_at:
            return 0
        room = self._async_room() if self.sync_waits else self._sync_room()
        return max(room, self._far) if room > 0 else 0

    def came_back(self, *, sync: bool) -> None:
        """A call of this kind had to be given back."""
        if not self.looking:
            # Not at once: a runner may be free in a moment.
            self._pause, self._far = _PAUSES[0], 1
            self._look_at = time.monotonic() + self._pause
        if sync:
            self.sync_waits = True
        else:
            self.async_waits = True

    def looked(self, began: float, *, kept: int, returned: int) -> None:
        """So many calls of one kind were found, among so many of the other."""
        now = time.monotonic()
        if returned <= 4 * kept:
            self._pause, self._far = 0.0, 1
        else:
            self._pause = min(_PAUSES[1], max(_PAUSES[0], 2 * self._pause))
            self._far = min(_FARTHEST, 4 * self._far)
        self._look_at = now + max(self._pause, _REST * (now - began) if returned else 0.0)

    def until_look(self) -> float:
        """Seconds until the next look; infinity when none is to come."""
        if self.looking and not (self.sync_waits and self.async_waits):
            return max(0.0, self._look_at - time.monotonic())
        return float("inf")

    def _sync_room(self) -> int:
        waiting = len(self._sync.unstarted)
        target = self._sync.pace.target
        if self._sync.overrun():
            return 0
        if target == 1:
            # Long tasks: nothing is claimed ahead, so that it stays free for other workers.
            room = max(0, self._sync.width - self._sync.busy - waiting)
            if room and self._gathering:
                return max(room, min(self._gathering.missing(), 2 * self.last_claim))
            return room
        # Growing step by step: an average of few tasks may be wrong.
        goal = min(target * self._sync.width, 2 * self.last_claim, MOST)
        return goal if waiting * 2 < goal else 0

    def _async_room(self) -> int:
        if not self._async.wanted:
            return 0
        return min(self._async.concurrency - self._async.running, 2 * self.last_claim)

    def learn(self, *, run: int, ended: int) -> None:
        """Of the last claim so many are to be run, and so many have ended without that."""
        self._again = min(_AGAIN, 2 * ended) if ended > 3 * run else 0


log = logging.getLogger("jobs.worker")

#: With ``burst``, what is due within so many seconds counts as waiting: an attempt that is to be
#: made at once is due in the next whole millisecond, by the server's clock and not by this one.
_AT_ONCE = 0.01
#: Seconds after which a burst that has run everything asks again whether all is recorded.
_RECORDED = 0.005

#: Seconds until a queue is asked again that the broker has refused.
_ASK_AGAIN = 1.0


class Consumer:
    def __init__(
        self,
        name: str,
        queues: Sequence[str],
        sync: SyncRunners,
        loop: AsyncRunner,
        recorder: Recorder,
        board: Board,
        *,
        weights: Sequence[int] = (),
        batch: int = 1,
        burst: bool,
        stop: Callable[[], None],
    ) -> None:
        """``stop``: called when, with ``burst``, the queues are empty, or when this child has run
        as many tasks as it may."""
        self.name = name
        self._queues = queues
        self._order = order_of(queues, weights)
        self._sync = sync
        self._async = loop
        self._recorder = recorder
        self._board = board
        self._burst = burst
        self._stop = stop
        self._conf = conf.get()
        self._poll = self._conf.poll_seconds
        if any(self._conf.queue(queue).open for queue in queues):
            self._poll = min(self._poll, 1.0)
        #: Each queue's own: a claim whose answer was lost is repeated with the same number.
        self._next_number = dict.fromkeys(queues, 1)
        self._next_due: float | None = None
        #: The only queue was just seen to be empty.
        self._empty = False
        self._suspects = Suspects(sync, loop)
        self._gathering = Gathering(batch)
        self._appetite = Appetite(sync, loop, recorder, self._gathering)
        self._overrides = Overrides()
        #: What is on its way back to its queue, and stays here until the broker has it.
        self._returning: list[Delivery] = []
        #: Queues that the broker refuses → when they are asked again (monotonic).
        self._refused: dict[str, float] = {}
        self._next_look = 0.0
        self._patience = Patience(
            f"{name}: the {{what}} is away; trying again", f"{name}: the {{what}} is back"
        )
        #: Whether the broker has answered during this step.
        self._answered = False
        self._stopping = False
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

        A consumer that only waits for messages holds none, and looks at nothing before it has
        seen that it should stop: the process may end under it.
        """
        while self._thread.is_alive() and not self.waiting:
            self._thread.join(0.02)

    def run(self) -> None:
        while not self._stopping:
            try:
                self.step()
            except AWAY as error:
                connections.close_all()
                self._pause(self._patience.away(error))
            else:
                # The step as a whole: a broker that lets claim but not wait is not back.
                if self._answered and self._patience.missing == BROKER:
                    self._patience.back()
        try:
            held = (self._sync, self._suspects, self._gathering)
            self._give_back([delivery for holder in held for delivery in holder.take_back()])
        except BrokerUnavailable as error:
            log.warning("%s: the supervisor gives back what it holds: %s", self.name, error)
        self._overrides.end()
        connections.close_all()
        broker.get().close()

    def step(self) -> None:
        """Claim once, or wait for a reason to."""
        self._answered = False
        if self._returning:
            self._give_back([])
        if self._patience.missing == DATABASE:
            self._ask_database()
        finished = self._sync.finished + self._async.finished
        self._board.set_ready(finished)
        if 0 < self._conf.max_tasks_per_child <= finished:
            self._stop()
            return
        if self._sync.unstarted and self._sync.overrun():
            self._appetite.came_back(sync=True)  # what would be claimed now would do so, too
            self._give_back(self._sync.take_back())
        self._suspects.step()
        if self._gathering:
            self._run_sync(self._gathering.due(time.monotonic()))
        room = self._room()
        if room > 0:
            self._overrides.look(time.monotonic())
            # Asked first: what just ends may send more.
            over = self._burst and self._is_idle() and self._recorder.idle
            if self._empty or not self._claim(room):
                self._found_nothing(room, over=over)
            return
        self._sync.freed.clear()
        if self._room() <= 0:  # still: nobody was freed before the flag was cleared
            held = self._sync.unstarted or self._gathering
            self._sync.freed.wait(min(AHEAD if held else 1.0, self._appetite.until_look()))
        self._look_for_revocations()

    def _ask_database(self) -> None:
        """Claim nothing while what has to be looked up can't be: it would only come back."""
        ledger.ended([""])
        self._patience.back()

    def _look_for_revocations(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            self._terminate_revoked()

    # ------------------------------------------------------------------ claiming

    def _room(self) -> int:
        """How many deliveries there is use for now."""
        return 0 if self._suspects.busy else self._appetite.room()

    def _claim(self, room: int) -> int:
        """How many messages were claimed; not 0 if it is to be tried again."""
        claimed, kept, again = 0, 0, False
        looking, began = self._appetite.looking, time.monotonic()
        self._next_due = None
        for queue in self._order.next():
            if self._refused.get(queue, 0.0) > began or self._recorder.stuck(queue):
                continue
            try:
                while True:
                    number, lease = self._next_number[queue], self._conf.lease_seconds
                    wanted = room - kept
                    claim = broker.get().claim(queue, self.name, number, wanted, lease)
                    again |= claim.resume is not None
                    count = len(claim.messages)
                    self._order.asked(queue, wanted, got=count)
                    claimed += count
                    kept += self._take(queue, claim)
                    # What goes back is held until then: the next claim is of what is behind it.
                    if not (looking and count) or kept or claimed >= room:
                        break
            except QueueRefused as error:
                self._refuse(queue, error)
            else:
                if self._refused.pop(queue, None):
                    log.warning("%s: queue %s can be used again", self.name, queue)
            if kept >= room:
                break
        if looking:
            returned = len(self._returning)
            self._give_back([])
            self._appetite.looked(began, kept=kept, returned=returned)
        elif claimed:
            self._appetite.last_claim = claimed
        return claimed or int(again)

    def _refuse(self, queue: str, error: QueueRefused) -> None:
        """Leave a queue alone for a while; the others go on. Raises the error where there are
        none."""
        if len(self._queues) == 1:
            raise error
        if queue not in self._refused:
            log.error("%s: queue %s is left out, and asked again: %s", self.name, queue, error)
        self._refused[queue] = time.monotonic() + _ASK_AGAIN
        self._answered = True

    def _take(self, queue: str, claim: Claim) -> int:
        """How many of the messages were not to go back at once."""
        self._answered = True
        self._next_number[queue] = claim.resume or self._next_number[queue] + len(claim.messages)
        if claim.next_due is not None:
            self._next_due = min(claim.next_due, self._next_due or claim.next_due)
        return self._dispatch(queue, claim) if claim.messages else 0

    def _dispatch(self, queue: str, claim: Claim) -> int:
        now, claimed = time.time(), time.monotonic()
        deliveries = []
        trusted = self._conf.queue(queue).open
        for number, raw in claim.messages:
            prepared = admission.prepare(
                queue, number, raw, trusted=trusted, worker=self.name, now=now, claimed=claimed
            )
            if isinstance(prepared, Outcome):
                prepared.claimed = claimed
                self._recorder.add(prepared.weigh())
            else:
                deliveries.append(prepared)
        count = len(claim.messages)
        if self._appetite.looking:
            # Before they are asked for anything that they would only have to give back.
            waits = [d for d in deliveries if self._waits(d)]
            self._returning += waits
            count -= len(waits)
            deliveries = [d for d in deliveries if not self._waits(d)]
        deliveries = self._admitted(queue, claim, deliveries, Run(self.name, now))
        deliveries = self._suspects.hold(deliveries)
        sync = [d for d in deliveries if not d.task.is_async]
        if len(sync) < len(deliveries):
            self._dispatch_async([d for d in deliveries if d.task.is_async])
        if self._gathering.wanted:
            sync = self._gathering.add(sync, claimed)
        self._run_sync(sync)
        return count

    def _waits(self, delivery: Delivery) -> bool:
        """Whether no runner of its kind is free."""
        appetite = self._appetite
        return appetite.async_waits if delivery.task.is_async else appetite.sync_waits

    def _admitted(
        self, queue: str, claim: Claim, deliveries: list[Delivery], run: Run
    ) -> list[Delivery]:
        try:
            answer = self._admit(queue, claim, deliveries, run)
        except DatabaseError:
            self._give_back(deliveries)
            raise
        except BrokerUnavailable:
            self._returning += deliveries
            raise
        finally:
            self._care.between_tasks()
        for outcome in answer.outcomes:
            self._recorder.add(outcome.weigh())
        self._appetite.learn(run=len(answer.deliveries), ended=len(answer.outcomes))
        return answer.deliveries

    def _admit(self, queue: str, claim: Claim, deliveries: list[Delivery], run: Run) -> Answer:
        """`admission.admit`; a message of which that can't even be asked stops none but itself."""
        try:
            return admission.admit(queue, claim, deliveries, run, self._ids_here)
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(deliveries) == 1:
                one = deliveries[0]
                return Answer(
                    [], [admission.given_up(queue, one.number, one.raw, True, run, error)]
                )
        answers = [self._admit(queue, claim, [one], run) for one in deliveries]
        return Answer(
            [d for answer in answers for d in answer.deliveries],
            [o for answer in answers for o in answer.outcomes],
        )

    def _ids_here(self) -> set[str]:
        """The calls that were claimed before and aren't recorded yet, read in the order in which
        they go through this process."""
        held = [*self._returning, *self._suspects.held, *self._gathering.held]
        held += list(self._sync.unstarted)
        held += self._sync.running.copy().values()
        held += self._async.deliveries.copy().values()
        return {one.message.id for one in each(held)} | self._recorder.waiting()

    def _run_sync(self, deliveries: list[Delivery]) -> None:
        if deliveries and self._sync.overrun():
            self._appetite.came_back(sync=True)
            self._give_back(deliveries)
        elif deliveries:
            self._sync.submit(deliveries)

    def _dispatch_async(self, deliveries: list[Delivery]) -> None:
        # The claim was sized for synchronous tasks as well: it may have brought too many.
        room = max(0, self._async.concurrency - self._async.running)
        if deliveries[:room]:
            self._async.submit(deliveries[:room])
        if deliveries[room:]:
            self._appetite.came_back(sync=False)
            self._give_back(deliveries[room:])

    def _terminate_revoked(self) -> None:
        """Have this process killed if it runs a task that is not to go on."""
        running = each(self._sync.running.copy().values())
        running += self._async.deliveries.copy().values()
        for queue in self._queues:
            mine = [d for d in running if d.queue == queue]
            if not mine:
                continue
            try:
                said = broker.get().revoked(queue, [d.message.id for d in mine])
            except QueueRefused as error:
                self._refuse(queue, error)
                continue
            self._answered = True
            for delivery, revocation in zip(mine, said, strict=True):
                if revocation is Revocation.TERMINATE:
                    self._board.condemn(key(queue, delivery.number), time.monotonic())

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._returning += each(deliveries)
        by_queue: dict[str, list[Returned]] = {}
        for d in self._returning:
            form = admission.unstarted(d)
            by_queue.setdefault(d.queue, []).append(Returned(d.number, d.message.priority, form))
        # Before another worker has them, which holds what it needs under the same names.
        if slots := [slot for d in self._returning for slot in d.slots]:
            admission.give_up(slots)
        stay = set()
        for queue, some in by_queue.items():
            try:
                broker.get().release(queue, self.name, some)
            except QueueRefused as error:
                self._refuse(queue, error)
                stay.add(queue)
            self._answered = True
        # With the broker away they would have stayed, and the next step would try again.
        returned = [d for d in self._returning if d.queue not in stay]
        self._returning = [d for d in self._returning if d.queue in stay]
        admission.give_back(returned)

    # ------------------------------------------------------------------ idling

    def _found_nothing(self, room: int, *, over: bool) -> None:
        if over and (self._next_due is None or self._next_due > _AT_ONCE):
            self._stop()
            return
        # What runs may be revoked meanwhile.
        timeout = self._poll if self._is_idle() else min(self._poll, 1.0)
        if self._sync.unstarted or self._burst:
            # With nothing running, only the recorder has to finish before a burst is over.
            timeout = _RECORDED if self._burst and self._is_idle() else AHEAD
        if self._next_due is not None:
            timeout = min(timeout, self._next_due)
        if self._gathering:
            timeout = min(timeout, self._gathering.wait(time.monotonic()))
        if self._patience.missing:
            timeout = 0.0  # to learn whether waiting works again
        self._wait(room, timeout)
        self._look_for_revocations()

    def _is_idle(self) -> bool:
        held = self._sync.unstarted or self._gathering
        return not (held or self._sync.busy or self._async.running)

    def _wait(self, room: int, timeout: float) -> None:
        # What it holds back for the runners is its own to give back, should it be told to stop now.
        self.waiting = not (self._sync.unstarted or self._gathering)
        try:
            if self._stopping:
                return
            if len(self._queues) > 1 or self._burst:
                self._wait_for_bells(timeout)
                return
            claim = self._wait_and_claim(self._queues[0], room, timeout)
        finally:
            self.waiting = False
        self._take(self._queues[0], claim)
        taken = len(claim.messages)
        self._empty = not taken
        self._appetite.last_claim = taken or self._appetite.last_claim
        if self._appetite.looking and self._returning:
            self._give_back([])

    def _wait_for_bells(self, timeout: float) -> None:
        queues = [queue for queue in self._queues if queue not in self._refused]
        if self._refused:
            timeout = min(timeout, _ASK_AGAIN)
        try:
            if queues:
                broker.get().wait(queues, timeout)
                return
        except QueueRefused as error:
            if len(self._queues) == 1:
                raise
            # One of the bells, or waiting altogether: then all are looked at now and then.
            log.debug("%s: the bells can't be heard: %s", self.name, error)
        time.sleep(min(timeout, _ASK_AGAIN))

    def _wait_and_claim(self, queue: str, room: int, timeout: float) -> Claim:
        """What the bell rang for comes with it: a third of the way from `delay` to the task."""
        self._empty = False
        self._next_due = None
        number, lease = self._next_number[queue], self._conf.lease_seconds
        return broker.get().wait_and_claim(queue, self.name, number, room, lease, timeout)

    def _pause(self, seconds: float) -> None:
        self.waiting = True
        time.sleep(seconds)
        self.waiting = False
