"""Outcomes to the ledger and the broker, in batches: recorded first, acknowledged then.

Killed between the two, the next delivery finds the outcome recorded and only acknowledges; or, if
that is the end of a dead letter, buries it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connections, transaction

from jobs import (
    broker,
    conf,
    ledger,
    message,
    registry,
)
from jobs.broker.base import Later, Outgoing, Returned
from jobs.exceptions import BadSignature, BrokerUnavailable, MessageError, QueueRefused
from jobs.ledger.outcomes import Record
from jobs.ledger.refusals import is_cut, is_refusal
from jobs.running import notes
from jobs.timing import clock
from jobs.worker.claim import admission
from jobs.worker.loops import AWAY, Patience, vital
from jobs.worker.record import joining, rows
from jobs.worker.record.following import after_end
from jobs.worker.record.outcome import (
    NOTHING,
    Following,
    Kind,
    Outcome,
)
from jobs.worker.record.rows import Run
from jobs.worker.run.database import Care

log = logging.getLogger("jobs.worker")

#: Most outcomes of one transaction.
FULL = 500
#: Most bytes of one transaction, but for a single outcome that has more.
FULL_BYTES = 4_000_000
#: Bytes that wait to be written, beyond which nothing more is run.
CROWDED_BYTES = 32_000_000
#: Longest time, in seconds, that an outcome waits for others while the worker is busy.
LINGER = 0.02
#: Seconds until another try at outcomes that can't be written while others can.
_ASIDE = 2.0
#: Seconds until another try at what the broker refuses of a queue: at first, and at most.
_REFUSED, _REFUSED_MOST = 1.0, 30.0
#: Outcomes that wait because the broker refuses their queue: so many, and the queue is not claimed
#: from; ten times as many of all queues, and none is.
_REFUSED_FULL = 1000


class _Waiting(NamedTuple):
    """Recorded outcomes of one queue of which the broker can't be told."""

    outcomes: list[Outcome]
    #: When to try again (monotonic), and how long after the last try that is.
    until: float
    pause: float


class Recorder:
    """A thread that writes down what the runners have done."""

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer
        self._outcomes: deque[Outcome] = deque()
        #: Those that could not be written while others could, and when to try again (monotonic).
        self._aside: list[Outcome] = []
        #: Those that are just being written.
        self._batch: list[Outcome] = []
        self._aside_until = 0.0
        #: Whether the log says that there are some.
        self._told_aside = False
        #: Queue → what the broker refuses to be told of it.
        self._refused: dict[str, _Waiting] = {}
        #: What it has refused to do about limits and locks.
        self._limits_refused: set[str] = set()
        #: Bytes of the large ones among the outcomes. Runners add, this thread takes away.
        self._bytes = 0
        self._weighing = threading.Lock()
        self._wake = threading.Event()
        #: Set by whoever knows that no outcome will follow soon.
        self._urgent = False
        self._stopping = False
        self._writing = False
        self._care = Care()
        self._patience = Patience(
            "the {what} is away; finished tasks wait to be recorded",
            "the {what} is back; finished tasks are recorded",
            longest=2.0,
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
        """Whether everything is written, and what follows is sent."""
        return not (self._outcomes or self._aside or self._writing)

    @property
    def backlog(self) -> int:
        return len(self._outcomes) + len(self._aside)

    @property
    def crowded(self) -> bool:
        """Whether so much waits to be written that no more should be run."""
        if self._bytes > CROWDED_BYTES:
            return True
        if not self._refused:
            return False
        waiting = sum(len(waiting.outcomes) for waiting in self._refused.copy().values())
        return waiting > 10 * _REFUSED_FULL

    def stuck(self, queue: str) -> bool:
        """Whether so much waits for a queue which the broker refuses that no more should be
        claimed from it."""
        waiting = self._refused.get(queue)
        return waiting is not None and len(waiting.outcomes) > _REFUSED_FULL

    def add(self, outcome: Outcome) -> None:
        if outcome.size:
            with self._weighing:
                self._bytes += outcome.size
        self._outcomes.append(outcome)
        count = len(self._outcomes)
        if count == 1 or count >= FULL or outcome.size:
            self._wake.set()

    def waiting(self) -> set[str]:
        """The ids of calls of which something is to be recorded yet. Also for other threads."""
        # In the order in which they pass, so that none is missed.
        found = [*list(self._outcomes), *self._batch, *self._aside, *list(self._outcomes)]
        return {o.record.id for o in found if o.record is not None}

    def flush(self) -> None:
        """Don't wait for more."""
        self._urgent = True
        self._wake.set()

    def _loop(self) -> None:
        while self.backlog or not self._stopping:
            self._linger()
            self.step()
        self._settle_refused(now=True)
        for queue, waiting in self._refused.items():
            log.error(
                "%d finished tasks of queue %s are recorded, but stay on the broker, which refuses "
                "the queue: whoever claims them later finds that they have ended",
                len(waiting.outcomes),
                queue,
            )
        connections.close_all()
        broker.get().close()

    def _linger(self) -> None:
        """Until a batch is worth its transaction."""
        if not self._outcomes:
            self._idle()
        ends = time.monotonic() + LINGER
        while True:
            self._wake.clear()  # before looking: what is set from here on ends the wait
            enough = len(self._outcomes) >= FULL or self._bytes >= FULL_BYTES
            if enough or self._urgent or self._stopping:
                break
            if not self._wake.wait(ends - time.monotonic()):
                break
        self._urgent = False

    def _idle(self) -> None:
        """Until there is something to write."""
        if self._aside:
            wait = max(0.0, self._aside_until - time.monotonic())
            if self._stopping:
                time.sleep(wait)  # the flag stays set
            else:
                self._wake.wait(wait)
        elif self._refused:
            until = min(waiting.until for waiting in self._refused.values())
            self._wake.wait(max(0.0, until - time.monotonic()))
        elif not self._wake.wait(1.0 if self._care.pending else None):
            self._care.now()

    def step(self) -> None:
        """Write down one batch; keeps trying until it is written."""
        self._writing = True
        self._write_batch()
        self._writing = False

    def _write_batch(self) -> None:
        if self._refused:
            self._settle_refused()
        batch = self._next_batch()
        if not batch:
            return
        self._write_down(batch)
        self._batch = []

    def _write_down(self, batch: list[Outcome]) -> None:
        self._persist(lambda: self._drop_lost(batch))
        unsigned = [o for o in batch if o.kind is Kind.DEAD and o.record is None and o.raw]
        if unsigned:
            self._persist(lambda: _end_own(unsigned))
        # First: killed after it, the next delivery finds the end, and what is to be done about it.
        written = [o for o in batch if o.record is not None or o.following is not NOTHING]
        if written:
            self._write(written)
            if self._told_aside and not self._aside and not self._outcomes:
                self._told_aside = False
                log.warning("all finished tasks are recorded again")
            if self._aside:
                batch = [o for o in batch if not any(o is one for one in self._aside)]
            self._care.between_tasks()
        over = [o for o in batch if o.reported and o.kind in _ENDS]
        # Before they are acknowledged: killed in between, the next delivery does it again.
        self._give_up(batch)
        self._settle(batch)
        if waiting := [o.waits_for for o in batch if o.waits_for]:
            self._give_up_all(admission.wait_for, waiting)
        for o in over:
            notes.forget(o.queue, o.reported, failed=o.failed)

    def _next_batch(self) -> list[Outcome]:
        """As many as one transaction should have."""
        if self._aside and time.monotonic() >= self._aside_until:
            with self._weighing:
                self._bytes += sum(o.size for o in self._aside)
            self._outcomes.extend(self._aside)
            self._aside = []
        batch: list[Outcome] = []
        self._batch = batch
        size = 0
        while self._outcomes and len(batch) < FULL:
            one = self._outcomes[0]
            size += one.size
            if size > FULL_BYTES and batch:
                break
            batch.append(one)
            self._outcomes.popleft()
        if size:
            with self._weighing:
                self._bytes -= sum(o.size for o in batch)
        return batch

    def _persist(self, step: Callable[[], object]) -> None:
        """Repeat a step that is safe to repeat until it succeeds. Raises `QueueRefused`: that may
        never end, and is not to hold up what is of other queues."""
        while True:
            try:
                step()
            except QueueRefused:
                raise
            except AWAY as error:
                connections.close_all()
                if is_refusal(error):
                    log.exception("the database refuses a step of the recorder, which is skipped")
                    return
                time.sleep(self._patience.away(error))
            else:
                self._patience.back()
                return

    # ------------------------------------------------------------------ the ledger

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        """Write these down, in one transaction if it can be, and wait while the database is away.

        Of a batch that is refused, or cut by a time limit of the database, each half is written by
        itself, and so on. So what one of them holds never keeps others from being recorded.
        """
        parts = [list(outcomes)]
        while parts:
            part = parts.pop()
            error = self._try(part)
            if error is None:
                continue
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            elif is_refusal(error):
                self._write_what_can_be(part[0], error)
            else:
                self._put_aside(part[0], error)

    def _try(self, part: Sequence[Outcome]) -> Exception | None:
        """None: they are written. Else why they are not, while the database answers."""
        again = False
        while True:
            try:
                _write(part)
            except Exception as error:  # noqa: BLE001  judged by `is_refusal`
                if again or is_cut(error) or (len(part) > 1 and is_refusal(error)):
                    return error
                connections.close_all()
                if isinstance(error, AWAY) and not is_refusal(error):
                    time.sleep(self._patience.away(error))
                again = not isinstance(error, BrokerUnavailable) and _answers()
            else:
                self._patience.back()
                return None

    def _write_what_can_be(self, outcome: Outcome, error: Exception) -> None:
        """No later try could store it, and its task has run: keep what can be kept."""
        what = outcome.ended or outcome.number
        log.error("the record of task %s can't be stored as it is: %s", what, error, exc_info=error)
        try:
            for less in _reductions(outcome, error):
                another = self._try([less])
                if another is None:
                    return
                if not is_refusal(another):
                    self._put_aside(outcome, another)
                    return
        except Exception:
            log.exception("nothing can be recorded of task %s", what)
        outcome.kind = Kind.DEAD
        outcome.reason = f"Its outcome can't be recorded: {admission.reason(error)}"
        outcome.failed = True

    def _put_aside(self, outcome: Outcome, error: Exception) -> None:
        """Others can be written, this one can't: its row is locked, or a table is missing."""
        if not self._told_aside:
            self._told_aside = True
            log.warning("some finished tasks can't be recorded yet; trying again: %s", error)
        self._aside.append(outcome)
        self._aside_until = time.monotonic() + _ASIDE

    def _drop_lost(self, batch: list[Outcome]) -> None:
        """Without the outcomes of deliveries that were taken away, since their lease had ended:
        another worker has them.

        A lease can't have ended of what was claimed less than half of it ago. What is gone, and
        was not taken away, was lost with the broker's data: its outcome counts, since nobody else
        will have one.
        """
        since = time.monotonic() - conf.get().lease_seconds / 2
        asked: dict[str, list[int]] = defaultdict(list)
        for o in batch:
            # What goes on through the broker must not be lost either.
            if o.held and (o.claimed < since or o.kind is Kind.BACK or o.attempt is not None):
                asked[o.queue].append(o.number)
        for queue, numbers in asked.items():
            try:
                gone = set(numbers) - broker.get().held(queue, self._consumer, numbers)
                if not gone:
                    continue
                taken = broker.get().taken(queue, self._consumer)
            except QueueRefused:
                continue  # nobody can tell; the ledger takes the first end that comes
            for o in [o for o in batch if o.queue == queue and o.number in gone and o.held]:
                if taken:
                    self._drop(o)
                    batch.remove(o)
                else:
                    log.warning(
                        "the broker has lost task %s while it ran; its outcome is recorded",
                        o.ended or o.number,
                    )
                    o.held = False

    def _drop(self, outcome: Outcome) -> None:
        log.warning(
            "task %s was taken over by another worker; its outcome here is dropped",
            outcome.ended or outcome.number,
        )
        admission.lose(outcome.slots)

    def _give_up(self, batch: Sequence[Outcome]) -> None:
        """What limits and unique locks these calls held."""
        if slots := [slot for o in batch for slot in o.slots]:
            self._give_up_all(admission.give_up, slots)
        if locks := [o.lock for o in batch if o.lock and o.kind in _ENDS]:
            self._give_up_all(admission.unlock, locks)

    def _give_up_all(self, verb: Callable[[list[Any]], object], things: Sequence[Any]) -> None:
        """What is refused of it is left alone: slots, locks and places in a line end with time."""
        name = verb.__name__
        try:
            self._persist(lambda: verb(list(things)))
        except QueueRefused as error:
            if name not in self._limits_refused:
                log.error("what finished tasks held of limits or locks stays held: %s", error)
                self._limits_refused.add(name)
            for one in things:
                with contextlib.suppress(QueueRefused):
                    self._persist(functools.partial(verb, [one]))
        else:
            self._limits_refused.discard(name)

    # ------------------------------------------------------------------ the broker

    def _settle(self, batch: Sequence[Outcome]) -> None:
        """Tell the broker, queue by queue: what it refuses of one holds up no other."""
        queues: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in batch:
            queues[outcome.queue].append(outcome)
        for queue, some in queues.items():
            left, error = self._settle_queue(queue, some)
            if error is None:
                continue
            if (waiting := self._refused.get(queue)) is not None:
                waiting.outcomes.extend(left)
                continue
            log.error(
                "the broker refuses queue %s, so it can't be told of %d finished tasks, which are "
                "recorded; it is tried again: %s",
                queue,
                len(left),
                error,
            )
            self._refused[queue] = _Waiting(left, time.monotonic() + _REFUSED, _REFUSED)

    def _settle_refused(self, *, now: bool = False) -> None:
        """Try again with what was refused before."""
        for queue, (outcomes, until, pause) in list(self._refused.items()):
            if not now and time.monotonic() < until:
                continue
            left, error = self._settle_queue(queue, outcomes)
            if error is None:
                del self._refused[queue]
                log.warning("the broker takes what finished tasks of queue %s say again", queue)
            else:
                pause = min(2 * pause, _REFUSED_MOST)
                self._refused[queue] = _Waiting(left, time.monotonic() + pause, pause)

    def _settle_queue(
        self, queue: str, outcomes: Sequence[Outcome]
    ) -> tuple[list[Outcome], QueueRefused | None]:
        """Those of these outcomes of one queue that the broker refuses, and its last refusal."""
        done = [o for o in outcomes if o.kind is Kind.DONE]
        ended = [o.ended for o in outcomes if o.ended]
        for o in outcomes:
            if o.told:
                ended += o.told
        left: list[Outcome] = []
        refused: QueueRefused | None = None
        steps: list[tuple[list[Outcome], Callable[[], object]]] = []
        if done or ended:
            numbers = [o.number for o in done]
            ack = functools.partial(broker.get().ack, queue, self._consumer, numbers, ended)
            steps.append((done, ack))
        if len(done) < len(outcomes):
            for kind, verb in (
                (Kind.LATER, self._put_later),
                (Kind.BACK, self._give_back),
                (Kind.DEAD, self._bury),
            ):
                if some := [o for o in outcomes if o.kind is kind]:
                    steps.append((some, functools.partial(verb, some)))
        for some, step in steps:
            try:
                self._persist(step)
            except QueueRefused as error:
                refused = error
                left += some
        for o in left:
            o.record = o.attempt = None  # they are recorded
            o.following = NOTHING
        return left, refused if left else None

    def _put_later(self, outcomes: Sequence[Outcome]) -> None:
        """Of one queue."""
        again = [
            Later(o.number, o.raw, o.priority, o.due)
            for o in outcomes
            if o.held and o.kind is Kind.LATER
        ]
        if again:
            broker.get().retry_all(outcomes[0].queue, self._consumer, again)
        for o in outcomes:
            # The next attempt of a call that was acknowledged before this one.
            if not o.held and o.kind is Kind.LATER:
                broker.get().push([Outgoing(o.queue, o.raw, o.priority, o.due)])
                o.kind = Kind.DONE  # should the next be refused: not a second time

    def _give_back(self, outcomes: Sequence[Outcome]) -> None:
        for o in outcomes:
            if o.held:
                back = Returned(o.number, o.priority)
                broker.get().release(o.queue, self._consumer, [back])
            elif o.kind is Kind.BACK:
                broker.get().push([Outgoing(o.queue, o.raw, o.priority)])
                o.kind = Kind.DONE  # likewise

    def _bury(self, dead: Sequence[Outcome]) -> None:
        for outcome in dead:
            if outcome.kind is not Kind.DEAD:
                continue
            if outcome.held:
                broker.get().dead_letter(
                    outcome.queue, self._consumer, outcome.number, outcome.reason, self._consumer
                )
            elif outcome.raw:
                broker.get().bury(outcome.queue, outcome.raw, outcome.reason, self._consumer)
            outcome.kind = Kind.DONE  # should the next be refused: not a second time
            log.error(
                "message %s of queue %s is a dead letter: %s",
                outcome.ended or f"number {outcome.number}",
                outcome.queue,
                outcome.reason,
            )


def _end_own(dead: Sequence[Outcome]) -> None:
    """Have those dead letters end their calls which no signature vouches for, but the ledger: the
    row of the call holds the same message, signed when the project had another key."""
    found: list[tuple[str, Outcome]] = []
    for outcome in dead:
        with contextlib.suppress(MessageError):
            sent = message.decode(outcome.raw, outcome.queue, trusted=True)
            found.append((sent.id, outcome))
    known = ledger.messages([task_id for task_id, _ in found])
    for task_id, outcome in found:
        stored = known.get(task_id, b"")
        if not message.is_same(outcome.raw, stored):
            continue
        sent = message.decode(stored, outcome.queue, trusted=True)
        if task := registry.tasks.get(sent.task):
            sent.sensitive = task.sensitive
        run, why = Run("", time.time()), BadSignature(outcome.reason.partition(": ")[2])
        outcome.record = ledger.bounded(rows.failure(sent, stored, run, why))
        outcome.following = after_end(sent, stored, run, why)
        outcome.ended = sent.id


#: What ends a call, or its message.
_ENDS = (Kind.DONE, Kind.DEAD)


def _write(outcomes: Sequence[Outcome]) -> None:
    """In one transaction: whatever happens then, all of it is there or nothing."""
    with transaction.atomic(using=ledger.alias()):
        _write_all(outcomes)


def _answers() -> bool:
    """Whether the database does, so that what it has just failed at is no outage."""
    try:
        ledger.ended([""])
    except AWAY:
        return False
    return True


def _write_all(outcomes: Sequence[Outcome]) -> None:
    records = [o.record for o in outcomes if o.record is not None]
    attempts = [o.attempt for o in outcomes if o.attempt is not None]
    followed = [o for o in outcomes if o.following is not NOTHING]
    if followed:
        _write_followed(records, followed)
    else:
        ledger.record(records)
    if attempts:
        ledger.record_attempts(attempts)


def _write_followed(records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
    everything = [*records, *(end for o in outcomes for end in o.following.ends)]
    members = [member for o in outcomes for member in o.following.members]
    for o in outcomes:
        o.told = [end.id for end in o.following.ends]
    newly: set[str] = set()
    if members:
        newly = ledger.record_ends(everything)
    else:
        ledger.record(everything)
    sending = [o for o in outcomes if o.following.messages]
    if sending:
        standing = ledger.standing([o.record for o in sending if o.record is not None])
        stand = [o for o in sending if o.record is None or o.record.id in standing]
        joining.send([o.following for o in stand])
    # Last: from here on others wait for the chords' counters.
    outcomes[0].told += joining.join(members, newly)


def _reductions(outcome: Outcome, error: Exception) -> Iterator[Outcome]:
    """The same outcome with ever less of what may be what can't be stored."""
    if outcome.record is not None:
        outcome.record = ledger.bounded(outcome.record)
    following = outcome.following
    ends = [ledger.bounded(end) for end in following.ends if message.is_name(end.id)]
    outcome.following = following._replace(ends=ends)
    yield outcome
    # What should follow ends instead.
    now = clock.now()
    unsent = [one for one in following.messages if message.is_name(one.id)]
    run = Run("", now.timestamp())
    ends += [ledger.bounded(rows.failure(one, b"", run, error)) for one in unsent]
    outcome.attempt = None
    outcome.following = Following(ends=ends, members=following.members)
    yield outcome
    if outcome.record is not None:
        text = f"The outcome ({outcome.record.state}) could not be stored: {error}"
        outcome.record = outcome.record._replace(
            args="[]",
            kwargs="{}",
            result=None,
            error=ledger.plain(text),
            traceback="",
            created_at=now,
            eta=None,
            started_at=None,
            finished_at=now if outcome.record.finished_at else None,
            group_id=None,
            group_index=None,
            parent_id=None,
            root_id=None,
        )
        outcome.following = Following(members=following.members)
        yield outcome
        outcome.following = NOTHING
        yield outcome
