"""Outcomes to the ledger and the broker, in batches: recorded first, acknowledged then.

Killed between the two, the next delivery finds the outcome recorded and only acknowledges.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

from django.db import connections, transaction

from jobs import broker, clock, conf, ledger, message, notes
from jobs.broker.base import Later, Outgoing, Returned
from jobs.exceptions import BrokerUnavailable
from jobs.ledger import Record
from jobs.worker import joining, permits, prepare, record
from jobs.worker.database import Care
from jobs.worker.outcome import NOTHING, Following, Kind, Outcome
from jobs.worker.patience import AWAY, Patience, is_cut, is_refusal
from jobs.worker.record import Run
from jobs.worker.vital import vital

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
        return self._bytes > CROWDED_BYTES

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
        elif not self._wake.wait(1.0 if self._care.pending else None):
            self._care.now()

    def step(self) -> None:
        """Write down one batch; keeps trying until it is written."""
        self._writing = True
        self._write_batch()
        self._writing = False

    def _write_batch(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        self._write_down(batch)
        self._batch = []

    def _write_down(self, batch: list[Outcome]) -> None:
        self._persist(lambda: self._drop_lost(batch))
        dead = [o for o in batch if o.kind is Kind.DEAD]
        # The letter first: were the failure recorded before it, a crash between the two would
        # have the next delivery acknowledged as ended, and the message gone.
        self._persist(lambda: self._bury(dead))
        written = [o for o in batch if o.record is not None or o.following is not NOTHING]
        if written:
            self._write(written)
            self._persist(lambda: self._bury(written))  # those that the database refuses
            if self._aside:
                batch = [o for o in batch if not any(o is one for one in self._aside)]
            self._care.between_tasks()
        ignored = [o.ignored for o in batch if o.ignored]
        if ignored:
            self._persist(lambda: ledger.forget(ignored))
        over = [o for o in batch if o.reported and o.kind is Kind.DONE]
        # Before they are acknowledged: killed in between, the next delivery does it again.
        self._give_up(batch)
        self._persist(lambda: self._settle(batch))
        if waiting := [o.waits_for for o in batch if o.waits_for]:
            self._persist(lambda: permits.wait_for(waiting))
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

    def _persist(self, step: Callable[[], None]) -> None:
        """Repeat a step that is safe to repeat until it succeeds."""
        while True:
            try:
                step()
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
        outcome.reason = f"Its outcome can't be recorded: {prepare.reason(error)}"
        outcome.failed = True

    def _put_aside(self, outcome: Outcome, error: Exception) -> None:
        """Others can be written, this one can't: its row is locked, or a table is missing."""
        if not self._aside:
            log.warning("some finished tasks can't be recorded yet, others can: %s", error)
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
            gone = set(numbers) - broker.get().held(queue, self._consumer, numbers)
            if not gone:
                continue
            taken = broker.get().taken(queue, self._consumer)
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
        permits.lose(outcome.slots)

    def _bury(self, dead: Sequence[Outcome]) -> None:
        for outcome in [o for o in dead if o.kind is Kind.DEAD]:
            log.error(
                "message %s of queue %s is a dead letter: %s",
                outcome.ended or f"number {outcome.number}",
                outcome.queue,
                outcome.reason,
            )
            if outcome.held:
                broker.get().dead_letter(
                    outcome.queue, self._consumer, outcome.number, outcome.reason, self._consumer
                )
            elif outcome.raw:
                broker.get().bury(outcome.queue, outcome.raw, outcome.reason, self._consumer)
            outcome.kind = Kind.DONE  # should the next be refused: not a second time

    def _give_up(self, batch: Sequence[Outcome]) -> None:
        """What limits and unique locks these calls held."""
        slots = [slot for o in batch for slot in o.slots]
        locks = [o.lock for o in batch if o.lock and o.kind is Kind.DONE]
        if slots:
            self._persist(lambda: permits.give_up(slots))
        if locks:
            self._persist(lambda: permits.unlock(locks))

    def _settle(self, batch: Sequence[Outcome]) -> None:
        numbers: dict[str, list[int]] = defaultdict(list)
        ended: dict[str, list[str]] = defaultdict(list)
        later: dict[str, list[Later]] = defaultdict(list)
        for outcome in batch:
            if outcome.kind is Kind.LATER and outcome.held:
                again = Later(outcome.number, outcome.raw, outcome.priority, outcome.due)
                later[outcome.queue].append(again)
            elif outcome.kind is Kind.LATER:
                self._send_later(outcome)
            elif outcome.kind is Kind.BACK:
                self._give_back(outcome)
            elif outcome.kind is Kind.DONE:
                numbers[outcome.queue].append(outcome.number)
            if outcome.ended:
                ended[outcome.queue].append(outcome.ended)
            if outcome.told:
                ended[outcome.queue] += outcome.told
        for queue, deliveries in later.items():
            broker.get().retry_all(queue, self._consumer, deliveries)
        for queue in numbers.keys() | ended.keys():
            broker.get().ack(queue, self._consumer, numbers[queue], ended[queue])

    def _give_back(self, outcome: Outcome) -> None:
        queue, priority = outcome.queue, outcome.priority
        if outcome.held:
            back = Returned(outcome.number, priority)
            broker.get().release(queue, self._consumer, [back])
        else:
            broker.get().push([Outgoing(queue, outcome.raw, priority)])
            outcome.kind = Kind.DONE  # should this batch be settled again: not a second time

    def _send_later(self, outcome: Outcome) -> None:
        """The next attempt of a call that was acknowledged before this one."""
        sent = Outgoing(outcome.queue, outcome.raw, outcome.priority, outcome.due)
        broker.get().push([sent])
        outcome.kind = Kind.DONE  # should this batch be settled again: not a second time


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
    ends += [ledger.bounded(record.failure(one, b"", run, error)) for one in unsent]
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
