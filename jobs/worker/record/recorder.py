"""Outcomes to the ledger and then to the broker, in batches: recorded first, acknowledged second.

When the process is killed between the two, the next delivery finds the outcome recorded, and only
acknowledges the message; or buries it, if it was to be a dead letter.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from django.db import Error as DatabaseError
from django.db import connections, transaction
from msgspec.structs import replace

from jobs import (
    broker,
    conf,
    ledger,
    logs,
    message,
    registry,
    signals,
)
from jobs.broker import base
from jobs.broker.base import Outgoing, Returned
from jobs.broker.sharding import queue_of
from jobs.control.metrics import REVOKED
from jobs.exceptions import BadSignature, BrokerUnavailable, MessageError, QueueRefused
from jobs.ledger.outcomes import Record
from jobs.ledger.refusals import is_cut, is_refusal
from jobs.limits import keeper
from jobs.message import Killed
from jobs.running import notes
from jobs.running.request import request_of
from jobs.states import TERMINAL
from jobs.timing import clock
from jobs.worker.celery.events import Teller
from jobs.worker.loops import AWAY, Backoff, vital
from jobs.worker.record import celery_results, joining
from jobs.worker.record.following import after_end
from jobs.worker.record.metering import Meter
from jobs.worker.record.outcome import (
    NOTHING,
    Back,
    Dead,
    Done,
    Following,
    Later,
    Outcome,
    Run,
    buried,
    failure,
    reason,
)
from jobs.worker.run.isolation import Care

log = logging.getLogger("jobs.worker")

_T = TypeVar("_T")

#: Most outcomes of one transaction.
FULL = 500
#: Most bytes of one transaction, unless a single outcome has more.
FULL_BYTES = 4_000_000
#: Outcomes waiting to be written from which on nothing more is claimed.
_BACKLOG_MOST = 4 * FULL
#: Bytes waiting to be written from which on nothing more is run.
CROWDED_BYTES = 32_000_000
#: Longest time, in seconds, that an outcome waits for others while the worker is busy.
LINGER = 0.02
#: Seconds until another try at outcomes that could not be written while others could.
_ASIDE = 2.0
#: Seconds until another try at a queue that the broker refuses: at first, and at most.
_REFUSED, _REFUSED_MOST = 1.0, 30.0
#: Likewise while the queue's node of a Cluster is away.
_AWAY, _AWAY_MOST = 0.2, 1.0
#: When more outcomes wait because the broker doesn't take them, their queue is not claimed from;
#: when ten times as many of all queues wait, none is.
_REFUSED_FULL = 1000

# Below, `type(o) is` stands where every outcome passes: `isinstance` takes three times as long.

#: What ends a call, or its message.
_ENDS = (Done, Dead)


class _Waiting(NamedTuple):
    """Recorded outcomes of a queue that the broker refuses, or whose node is away."""

    outcomes: list[Outcome]
    #: When to try again (monotonic), and how long after the last try that is.
    until: float
    pause: float


class Recorder:
    """A thread that writes down the outcomes of the runners."""

    def __init__(self, consumer: str, *, tells_celery: bool = False) -> None:
        """``tells_celery``: whether Celery's events are sent."""
        self._consumer = consumer
        self._outcomes: deque[Outcome] = deque()
        #: Outcomes that could not be written while others could, and when to try again (monotonic).
        self._aside: list[Outcome] = []
        #: Outcomes that are being written.
        self._batch: list[Outcome] = []
        self._aside_until = 0.0
        #: Whether the log says that some are aside.
        self._told_aside = False
        #: Queue → the outcomes that the broker doesn't take.
        self._refused: dict[str, _Waiting] = {}
        #: Names of the verbs about limits and locks that it refuses.
        self._limits_refused: set[str] = set()
        #: Bytes of the large outcomes that wait. Runners add, this thread subtracts.
        self._bytes = 0
        self._weighing = threading.Lock()
        #: How many calls have failed for good.
        self.failed = 0
        #: Set after each batch, unless so much is left that nothing should be claimed.
        self.freed = threading.Event()
        self._wake = threading.Event()
        #: Set when no further outcome is expected soon.
        self._urgent = False
        self._stopping = False
        self._writing = False
        self._care = Care()
        self._meter = Meter() if conf.get().metrics else None
        #: Of which calls Celery's clients are told: see JOBS["CELERY_RESULTS"]; empty: of none.
        self._celery = conf.get().celery_results.replace("none", "")
        #: The calls of the present batch of which they have been told.
        self._told_celery: set[str] = set()
        #: Whether the log says that the broker refuses Celery's keys.
        self._celery_refused = False
        self._teller = Teller(consumer) if tells_celery else None
        self._patience = Backoff(
            log,
            "the {what} is away; finished tasks wait to be recorded",
            "the {what} is back; finished tasks are recorded",
            longest=1.0,
        )
        self._thread = threading.Thread(target=vital(self._loop), name="jobs-recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when everything is written."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    @property
    def idle(self) -> bool:
        """Whether everything is written, and all that follows is sent."""
        return not (self._outcomes or self._aside or self._writing)

    @property
    def backlog(self) -> int:
        return len(self._outcomes) + len(self._aside)

    @property
    def full(self) -> bool:
        """Whether so much waits to be written that no more should be claimed. When that ends,
        ``freed`` is set."""
        return self.backlog > _BACKLOG_MOST or self.crowded

    @property
    def crowded(self) -> bool:
        """Whether so much waits to be written that no more should be run."""
        if self._bytes > CROWDED_BYTES:
            return True
        if not self._refused:
            return False
        total = sum(len(waiting.outcomes) for waiting in self._refused.copy().values())
        return total > 10 * _REFUSED_FULL

    def stuck(self, queue: str) -> bool:
        """Whether the broker refuses this queue, and so much waits for it that no more should be
        claimed from it."""
        waiting = self._refused.get(queue)
        return waiting is not None and len(waiting.outcomes) > _REFUSED_FULL

    def add(self, outcome: Outcome) -> None:
        if outcome.size:
            with self._weighing:
                self._bytes += outcome.size
        if outcome.failed and type(outcome) in _ENDS:
            with self._weighing:  # runners are threads
                self.failed += 1
        self._outcomes.append(outcome)
        count = len(self._outcomes)
        if (count == 1 or count >= FULL or outcome.size) and not self._wake.is_set():
            self._wake.set()

    def waiting(self) -> set[str]:
        """The ids of calls whose records are not written yet. Other threads may ask."""
        return {o.record.id for o in self._unwritten() if o.record is not None}

    def unsettled(self) -> set[tuple[str, int]]:
        """Queue and number of the deliveries that are not settled yet. Other threads may ask."""
        found = self._unwritten()
        for refused in self._refused.copy().values():  # after them: what is written goes there
            found += refused.outcomes
        return {(o.queue, o.number) for o in found if o.held}

    def _unwritten(self) -> list[Outcome]:
        # An outcome may move meanwhile: from _outcomes to _batch, to _aside and to _outcomes again.
        # Read in that order, none is missed.
        return [*list(self._outcomes), *self._batch, *self._aside, *list(self._outcomes)]

    def flush(self) -> None:
        """Write at once instead of waiting for more."""
        self._urgent = True
        self._wake.set()

    def _loop(self) -> None:
        # As the consumer does.
        with broker.get().passing_over():
            self._run()

    def _run(self) -> None:
        while self.backlog or not self._stopping:
            self._wait()
            self.step()
        self._settle_refused(now=True)
        for queue, waiting in self._refused.items():
            log.error(
                "%d finished tasks of queue %s are recorded, but stay on the broker, which doesn't "
                "take their acknowledgements; a worker that claims them later only acknowledges "
                "them",
                len(waiting.outcomes),
                queue,
            )
        if self._meter:
            self._meter.send()
        connections.close_all()
        broker.get().close()

    def _wait(self) -> None:
        """Wait until a batch is worth its transaction."""
        if not self._outcomes:
            if self._aside:
                pause = max(0.0, self._aside_until - time.monotonic())
                if self._stopping:
                    time.sleep(pause)  # stop() has set the event for good
                else:
                    self._wake.wait(pause)  # ended by add() and stop()
            elif self._refused:
                until = min(waiting.until for waiting in self._refused.values())
                self._wake.wait(max(0.0, until - time.monotonic()))  # ended by add() and stop()
            else:
                # Ended by add(), flush() and stop(). Once a second is also often enough for the
                # numbers of the metrics.
                pending = self._care.pending or (self._meter and self._meter.pending)
                if not self._wake.wait(1.0 if pending else None):
                    self._care.now()
        ends = time.monotonic() + LINGER
        while True:
            self._wake.clear()  # before looking: whoever sets it from here on ends the wait
            enough = len(self._outcomes) >= FULL or self._bytes >= FULL_BYTES
            if enough or self._urgent or self._stopping:
                break
            # Ended by add() when the batch is full, by flush() and stop().
            if not self._wake.wait(ends - time.monotonic()):
                break
        self._urgent = False

    def step(self) -> None:
        """Write down one batch; keeps trying until it is written."""
        self._writing = True
        if self._refused:
            self._settle_refused()
        batch = self._next_batch()
        if not self.full:
            self.freed.set()  # ends the consumer's wait
        if batch:
            batch = self._without_lost(batch)
            if [o for o in batch if type(o) is Dead]:
                batch = self._with_own_ends(batch)
            # First the ledger: when the process is killed after that, the next delivery finds the
            # end, and does the rest.
            batch = self._record(batch)
            # Before the acknowledgement, for the same reason.
            if self._celery and (
                self._celery == "all" or any(o.call is not None and o.call.celery for o in batch)
            ):
                told = self._told_celery
                self._tell_celery([o for o in batch if o.call and o.call.id not in told])
                told.clear()
            unusual = [o for o in batch if type(o) is not Done or o.slots or o.lock or o.reported]
            if slots := [slot for o in unusual for slot in o.slots]:
                self._tell_all(keeper.free, slots)
            if locks := [o.lock for o in unusual if o.lock and isinstance(o, _ENDS)]:
                self._tell_all(broker.get().unlock, locks)
            self._settle(batch)
            if waiting := [o.waits_for for o in unusual if type(o) is Later and o.waits_for]:
                # Now that their messages are among the due ones.
                self._tell_all(broker.get().wait_for_slots, waiting)
            for o in unusual:
                if o.reported and isinstance(o, _ENDS):
                    notes.forget(queue_of(o.queue), o.reported, failed=o.failed)
            if signals.task_revoked.receivers or signals.task_dead_lettered.receivers:
                self._announce(batch)
            if self._meter:
                self._meter.add(batch)
            if self._teller:
                self._teller.tell(batch)
            self._batch = []
        if self._meter:
            self._meter.send(time.monotonic())
        self._writing = False

    def _tell_celery_first(self, outcomes: Sequence[Outcome]) -> None:
        """`_tell_celery` of what follows these outcomes, before it is sent: a callback or errback
        may ask for the result of the call that it follows."""
        followed = [o for o in outcomes if o.following.messages and o.call and o.call.celery]
        if followed:
            self._tell_celery(followed)
            self._told_celery.update(o.call.id for o in followed if o.call)

    def _tell_celery(self, batch: Sequence[Outcome]) -> None:
        """Store what has become of calls where Celery's clients read it."""
        asked = celery_results.asked(batch, everything=self._celery == "all")
        if not asked:
            return
        try:
            kept = conf.get().celery_result_expires
            # First: who hears of the body's end may look at these.
            for group_id, parts in self._persist(celery_results.failed_chords, batch).items():
                self._persist(broker.get().store_celery_parts, group_id, parts, kept)
            results = self._persist(celery_results.told, asked)
            self._persist(broker.get().store_celery_results, results, kept)
        except (DatabaseError, QueueRefused) as error:
            if not self._celery_refused:
                log.error("Celery's clients can't be told of the ends of their calls: %s", error)
            self._celery_refused = True
        else:
            self._celery_refused = False

    def _announce(self, batch: Sequence[Outcome]) -> None:
        """Tell receivers about calls that were revoked, and about dead letters."""
        told = []
        for o in batch:
            sender = registry.tasks.get(o.call.task, o.call.task) if o.call else ""
            named = {"message": o.call, "worker": self._consumer}
            if o.counts == REVOKED:
                reason = o.record.error if o.record else ""
                told.append(
                    signals.Announcement(
                        signals.task_revoked,
                        sender,
                        named | {"reason": reason} | _as_celery_says(o, self._consumer),
                    )
                )
            if isinstance(o, Dead):
                named |= {"reason": o.reason, "queue": queue_of(o.queue)}
                told.append(signals.Announcement(signals.task_dead_lettered, sender, named))
        if told:
            self._tell(told)

    def _tell(self, told: list[signals.Announcement]) -> None:
        signals.announce_aside(told)

    def _next_batch(self) -> list[Outcome]:
        """Take as many outcomes as one transaction should have."""
        if self._aside and time.monotonic() >= self._aside_until:
            with self._weighing:
                self._bytes += sum(o.size for o in self._aside)
            self._outcomes.extend(self._aside)
            self._aside = []
        batch: list[Outcome] = []
        self._batch = batch
        # At once, and in this order: see `_unwritten`. Only this thread takes from the left end.
        batch.extend(itertools.islice(self._outcomes, FULL))
        if self._bytes:  # some of them may be large
            sizes = itertools.accumulate(o.size for o in batch)
            del batch[max(1, sum(size <= FULL_BYTES for size in sizes)) :]
            with self._weighing:
                self._bytes -= sum(o.size for o in batch)
        for _ in batch:
            self._outcomes.popleft()
        return batch

    def _persist(self, step: Callable[..., _T], *args: Any, of_queue: bool = False) -> _T:
        """Repeat a step that is safe to repeat until it succeeds.

        Raises what another try may never end: `QueueRefused`, which must not hold up other queues,
        and what the database refuses. ``of_queue``: the step is about one queue, so that it raises
        `BrokerUnavailable` when the queue's node of a Cluster is away, for the same reason.
        """
        while True:
            try:
                found = step(*args)
            except QueueRefused:
                raise
            except AWAY as error:
                if of_queue and isinstance(error, BrokerUnavailable) and error.partly:
                    raise
                connections.close_all()
                if is_refusal(error):
                    raise
                time.sleep(self._patience.away(error))
            else:
                self._patience.back()
                return found

    def _without_lost(self, batch: list[Outcome]) -> list[Outcome]:
        """Drop the outcomes of deliveries that were taken away after their lease had ended: another
        worker has them.

        The lease of a delivery that was claimed less than half a lease ago can't have ended. A
        delivery that is gone but was not taken away was lost with the broker's data. Its outcome
        counts, since nobody else will have one.
        """
        since = time.monotonic() - conf.get().lease_seconds / 2
        asked: dict[str, list[int]] = defaultdict(list)
        for o in batch:
            # An outcome that goes on through the broker needs its delivery, however new.
            if o.held and (o.claimed < since or (type(o) is not Done and _goes_on(o))):
                asked[o.queue].append(o.number)
        #: (queue, number) of what is gone → whether it was taken away.
        gone: dict[tuple[str, int], bool] = {}
        away: dict[str, BrokerUnavailable] = {}
        for queue, numbers in asked.items():
            try:
                held = self._persist(
                    broker.get().held, queue, self._consumer, numbers, of_queue=True
                )
                if missing := set(numbers) - held:
                    was_taken = self._persist(
                        broker.get().taken, queue, self._consumer, of_queue=True
                    )
                    gone |= {(queue, number): was_taken for number in missing}
            except QueueRefused:
                # Nobody can tell, and that may last: the ledger takes the first end.
                continue
            except BrokerUnavailable as error:
                if not error.partly:
                    raise
                away[queue] = error
        if away:
            unknown = {(queue, number) for queue in away for number in asked[queue]}
            for o in batch:
                if (o.queue, o.number) in unknown:
                    self._put_aside(o, away[o.queue])
            batch = [o for o in batch if (o.queue, o.number) not in unknown]
        if not gone:
            return batch
        kept = []
        for o in batch:
            if not o.held or (o.queue, o.number) not in gone:
                kept.append(o)
            elif gone[o.queue, o.number]:
                log.warning(
                    "task %s was taken over by another worker; its outcome here is dropped",
                    o.ended or o.number,
                )
                keeper.forget(o.slots)
            else:
                log.warning(
                    "the broker has lost task %s while it ran; its outcome is recorded",
                    o.ended or o.number,
                )
                kept.append(replace(o, held=False))
        return kept

    def _with_own_ends(self, batch: list[Outcome]) -> list[Outcome]:
        """Add the ends of calls whose messages were signed with a former SECRET_KEY. They are dead
        letters here, but they are ours if the ledger's row for that id holds the same message."""
        found: dict[int, tuple[Dead, str]] = {}
        for n, o in enumerate(batch):
            if type(o) is Dead and o.record is None and o.raw:
                with contextlib.suppress(MessageError):
                    found[n] = o, message.decode(o.raw, queue_of(o.queue), trusted=True).id
        if not found:
            return batch
        try:
            known = self._persist(ledger.messages, [task_id for _, task_id in found.values()])
        except DatabaseError:
            log.exception("the database refuses a step of the recorder, which is skipped")
            return batch
        batch = batch.copy()
        for n, (dead, task_id) in found.items():
            stored = known.get(task_id, b"")
            if not message.is_same(dead.raw, stored):
                continue
            sent = message.decode(stored, queue_of(dead.queue), trusted=True)
            if task := registry.tasks.get(sent.task):
                sent.sensitive = task.sensitive
            run, why = Run("", time.time()), BadSignature(dead.reason.partition(": ")[2])
            batch[n] = replace(
                dead,
                record=ledger.bounded(failure(sent, stored, run, why)),
                following=after_end(sent, stored, run, why),
                ended=sent.id,
                call=sent,
            )
        return batch

    # ------------------------------------------------------------------ the ledger

    def _record(self, batch: list[Outcome]) -> list[Outcome]:
        """Write a batch into the ledger, in one transaction if possible, and wait while the
        database is away. Returns the outcomes as they are to be settled, without those put aside.

        A batch that is refused, or cut by a time limit of the database, is halved, and so on: one
        bad outcome never keeps others from being recorded.
        """
        done = [o for o in batch if o.record is None and o.following is NOTHING]
        if len(done) == len(batch):
            return done
        parts = [[o for o in batch if o.record is not None or o.following is not NOTHING]]
        while parts:
            part = parts.pop()
            written = self._try(part)
            if not isinstance(written, Exception):
                done += written
            elif len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            elif is_refusal(written):
                done += self._write_what_can_be(part[0], written)
            else:
                self._put_aside(part[0], written)
        if self._told_aside and not self._aside and not self._outcomes:
            self._told_aside = False
            log.warning("all finished tasks are recorded again")
        self._care.between_tasks(time.monotonic())
        return done

    def _try(self, part: list[Outcome]) -> list[Outcome] | Exception:
        """Write these outcomes, and wait while the database is away. Returns them as they are
        written, or the error if the database answers and doesn't take them."""
        again = False
        while True:
            try:
                written = write(part, self._tell_celery_first if self._celery else None)
            except Exception as error:  # noqa: BLE001  judged by `is_refusal`
                if again or is_cut(error) or (len(part) > 1 and is_refusal(error)):
                    return error
                connections.close_all()
                if isinstance(error, AWAY) and not is_refusal(error):
                    time.sleep(self._patience.away(error))
                if not isinstance(error, BrokerUnavailable):
                    # If the database answers now, that was no outage: one more try decides.
                    with contextlib.suppress(*AWAY):
                        ledger.ended([""])
                        again = True
            else:
                self._patience.back()
                return written

    def _write_what_can_be(self, outcome: Outcome, error: Exception) -> list[Outcome]:
        """Record what can be stored of an outcome. No later try could store all of it, and its task
        has run."""
        what = outcome.ended or outcome.number
        log.error("the record of task %s can't be stored as it is: %s", what, error, exc_info=error)
        try:
            for less in _reductions(outcome, error):
                written = self._try([less])
                if not isinstance(written, Exception):
                    return written
                if not is_refusal(written):
                    self._put_aside(less, written)
                    return []
        except Exception:
            log.exception("nothing can be recorded of task %s", what)
        why = f"Its outcome can't be recorded: {reason(error)}"
        return [buried(outcome, why)]

    def _put_aside(self, outcome: Outcome, error: Exception) -> None:
        """Keep an outcome for later: others can be written, but its row is locked, or its table is
        missing."""
        if not self._told_aside:
            self._told_aside = True
            log.warning("some finished tasks can't be recorded yet; trying again: %s", error)
        self._aside.append(outcome)
        self._aside_until = time.monotonic() + _ASIDE

    # ------------------------------------------------------------------ the broker

    def _tell_all(self, verb: Callable[[list[Any]], object], things: list[Any]) -> None:
        """Tell the broker about slots, locks or places in a line. What it refuses of them is left
        alone: they expire."""
        name = verb.__name__
        try:
            self._persist(verb, things)
        except QueueRefused as error:
            if name not in self._limits_refused:
                log.error("slots or locks of finished tasks stay held until they expire: %s", error)
                self._limits_refused.add(name)
            for one in things:
                with contextlib.suppress(QueueRefused):
                    self._persist(verb, [one])
        else:
            self._limits_refused.discard(name)

    def _settle(self, batch: Sequence[Outcome]) -> None:
        """Settle the deliveries queue by queue, so that a queue that the broker refuses holds up no
        other."""
        for queue in {o.queue: None for o in batch}:
            some = [o for o in batch if o.queue == queue]
            left, error = self._settle_queue(queue, some)
            if error is None:
                continue
            if (waiting := self._refused.get(queue)) is not None:
                waiting.outcomes.extend(left)
                continue
            level, pause, why = logging.WARNING, _AWAY, f"the node of queue {queue} is away"
            if isinstance(error, QueueRefused):
                level, pause, why = logging.ERROR, _REFUSED, f"the broker refuses queue {queue}"
            text = "%s: %d finished tasks are recorded, but not acknowledged yet; trying again: %s"
            log.log(level, text, why, len(left), error)
            self._refused[queue] = _Waiting(left, time.monotonic() + pause, pause)

    def _settle_refused(self, *, now: bool = False) -> None:
        """Try again with the queues that were refused, or whose node was away."""
        for queue, (outcomes, until, pause) in list(self._refused.items()):
            if not now and time.monotonic() < until:
                continue
            left, error = self._settle_queue(queue, outcomes)
            if error is None:
                del self._refused[queue]
                log.warning("the broker takes acknowledgements of queue %s again", queue)
            else:
                most = _REFUSED_MOST if isinstance(error, QueueRefused) else _AWAY_MOST
                pause = min(2 * pause, most)
                self._refused[queue] = _Waiting(left, time.monotonic() + pause, pause)

    def _settle_queue(
        self, queue: str, outcomes: Sequence[Outcome]
    ) -> tuple[list[Outcome], BrokerUnavailable | None]:
        """Have the broker acknowledge, move or bury the deliveries of one queue. Returns the
        outcomes of those that it refuses or can't take now, and its last error."""
        done = [o for o in outcomes if type(o) is Done]
        ended = [o.ended for o in outcomes if o.ended]
        for o in outcomes:
            if o.told:
                ended += o.told
        steps: list[tuple[Sequence[Outcome], Callable[[], object]]] = []
        if done or ended:
            numbers = [o.number for o in done]
            ack = functools.partial(broker.get().ack, queue, self._consumer, numbers, ended)
            steps.append((done, ack))
        if len(done) < len(outcomes):
            if later := [o for o in outcomes if isinstance(o, Later) and o.held and not o.to]:
                again = [base.Later(o.number, o.raw, o.priority, o.due) for o in later]
                retry = functools.partial(broker.get().retry_all, queue, self._consumer, again)
                steps.append((later, retry))
            # One by one: some of these are not safe to repeat when the next one fails.
            steps += [
                ([o], functools.partial(self._settle_one, o))
                for o in outcomes
                if isinstance(o, Back | Dead) or (isinstance(o, Later) and (o.to or not o.held))
            ]
        left: list[Outcome] = []
        refused: BrokerUnavailable | None = None
        for some, step in steps:
            try:
                self._persist(step, of_queue=True)
            except BrokerUnavailable as error:
                if not (error.partly or isinstance(error, QueueRefused)):
                    raise
                refused = error
                # They are recorded already: what waits keeps only what the broker needs.
                left += [_reduced(o, None, NOTHING) for o in some]
        return left, (refused if left else None)

    def _settle_one(self, outcome: Dead | Back | Later) -> None:
        """Give a delivery back, or bury it. If it was acknowledged early, its message is pushed or
        buried anew."""
        queue, number, raw, me = outcome.queue, outcome.number, outcome.raw, self._consumer
        if isinstance(outcome, Dead):
            why = outcome.reason
            if outcome.held:
                broker.get().dead_letter(queue, me, number, why, me)
            elif raw:
                broker.get().bury(queue, raw, why, me)
            what = outcome.ended or f"number {number}"
            extra = None
            if call := outcome.call:
                what, extra = f"{call.task}[{call.id}]", logs.about(call, me)
            text = "message %s of queue %s is a dead letter: %s"
            log.error(text, what, queue_of(queue), why, extra=extra)
        elif isinstance(outcome, Later) and outcome.to:
            # Like `control.move`: killed in between, it is there twice under its id.
            broker.get().push([outcome.to])
            if outcome.held:
                broker.get().ack(queue, me, [number], [])
        elif outcome.held:
            broker.get().release(queue, me, [Returned(number, outcome.priority)])
        else:
            due = outcome.due if isinstance(outcome, Later) else None
            broker.by_shard().push([Outgoing(queue, raw, outcome.priority, due)])


def _as_celery_says(revoked: Outcome, worker: str) -> dict[str, Any]:
    """The arguments of Celery's signal ``task_revoked``."""
    call = revoked.call
    if call is None:
        return {"request": None, "terminated": False, "signum": None, "expired": False}
    return {
        "request": request_of(call, worker),
        "terminated": call.marks.killed == Killed.REVOKED,
        "signum": None,
        "expired": call.expires is not None and call.expires <= clock.now(),
    }


def _goes_on(outcome: Outcome) -> bool:
    return isinstance(outcome, Back) or (isinstance(outcome, Later) and outcome.attempt is not None)


def write(
    outcomes: list[Outcome], before_sending: Callable[[list[Outcome]], object] | None = None
) -> list[Outcome]:
    """Write outcomes and what follows them in one transaction. Returns them; ``told`` of those with
    followers has the ids of other calls that have ended by this.

    ``before_sending``: called with the outcomes after the commit, before what follows is sent.
    """
    records = [o.record for o in outcomes if o.record is not None]
    attempts = [o.attempt for o in outcomes if type(o) is Later and o.attempt is not None]
    followed = [o for o in outcomes if o.following is not NOTHING]
    if not (attempts or followed):
        ledger.record(
            records
        )  # all or none, in fewer round trips than with a transaction around it
        return outcomes
    records += [end for o in followed for end in o.following.ends]
    members = [member for o in followed for member in o.following.members]
    sending = [o for o in followed if o.following.messages]
    joined: list[str] = []
    with transaction.atomic(using=ledger.alias()):
        if sending and before_sending is not None:
            # Hooks run in their order, and `publish.send` adds its own below.
            tell = functools.partial(before_sending, outcomes)
            transaction.on_commit(tell, using=ledger.alias())
        newly: set[str] = set()
        if members or sending:
            newly = ledger.record_ends(records)
        else:
            ledger.record(records)
        if attempts:
            ledger.record_attempts(attempts)
        for o in outcomes:
            if type(o) is Later and o.to and o.attempt:
                ledger.moved([o.attempt.result_id], queue_of(o.to.queue))
        if sending:
            joining.send([o.following for o in _standing(sending, records, newly)])
        if members:
            # Last: from here on others wait for the chords' counters.
            joined = joining.join(members, newly)
    if not followed:
        return outcomes
    told = [[end.id for end in o.following.ends] for o in followed]
    told[0] += joined  # waiters are told once, whichever outcome carries the ids
    alone = [o for o in outcomes if o.following is NOTHING]
    return alone + [replace(o, told=ids) for o, ids in zip(followed, told, strict=True)]


def _standing(
    outcomes: Sequence[Outcome], records: Sequence[Record], newly: Collection[str]
) -> list[Outcome]:
    """Of these outcomes, those that the ledger holds. Of the others, another one was recorded
    first: by another worker, or for another delivery in this batch.

    ``newly``: the calls that have ended by these records. Nobody needs to ask about these.
    """
    ended: dict[str, str] = {}
    for record in records:
        if record.state in TERMINAL:
            ended.setdefault(record.id, record.state)  # the first one is written
    asked = [o.record for o in outcomes if o.record is not None and o.record.id not in newly]
    held = ledger.standing(asked) if asked else set()
    return [
        o
        for o in outcomes
        if o.record is None
        or o.record.id in held
        or (o.record.id in newly and ended[o.record.id] == o.record.state)
    ]


def _reductions(outcome: Outcome, error: Exception) -> Iterator[Outcome]:
    """The same outcome, with less and less of what the database may refuse."""
    record, following = outcome.record, outcome.following
    if record is not None:
        record = ledger.bounded(record)
    ends = [ledger.bounded(end) for end in following.ends if message.is_name(end.id)]
    yield replace(outcome, record=record, following=following._replace(ends=ends))
    # Calls that should follow end instead.
    now = clock.now()
    run = Run("", now.timestamp())
    unsent = [one for one in following.messages if message.is_name(one.id)]
    ends += [ledger.bounded(failure(one, b"", run, error)) for one in unsent]
    members = following.members
    yield _reduced(outcome, record, Following(ends=ends, members=members))
    if record is None:
        return
    text = f"The outcome ({record.state}) could not be stored: {error}"
    record = record._replace(
        args="[]",
        kwargs="{}",
        result=None,
        error=ledger.plain(text),
        traceback="",
        created_at=now,
        eta=None,
        started_at=None,
        finished_at=now if record.finished_at else None,
        group_id=None,
        group_index=None,
        parent_id=None,
        root_id=None,
    )
    for rest in (Following(members=members), NOTHING):
        yield _reduced(outcome, record, rest)


def _reduced(outcome: Outcome, record: Record | None, following: Following) -> Outcome:
    """The outcome with less to be stored, and without the attempt that has failed."""
    if isinstance(outcome, Later):
        return replace(outcome, record=record, following=following, attempt=None)
    return replace(outcome, record=record, following=following)
