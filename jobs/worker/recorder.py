"""Outcomes to the ledger and the broker, in batches: recorded first, acknowledged then.

Killed between the two, the next delivery finds the outcome recorded and only acknowledges.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from django.db import connections, transaction

from jobs import broker, conf, ledger, notes
from jobs.broker.base import Later, Outgoing, Returned
from jobs.ledger import Record
from jobs.worker import joining, permits
from jobs.worker.database import Care
from jobs.worker.joining import UNSTORABLE
from jobs.worker.outcome import NOTHING, Following, Kind, Outcome
from jobs.worker.patience import AWAY, Patience
from jobs.worker.vital import vital

log = logging.getLogger("jobs.worker")

#: Most outcomes of one transaction.
FULL = 500
#: Longest time, in seconds, that an outcome waits for others while the worker is busy.
LINGER = 0.02


class Recorder:
    """A thread that writes down what the runners have done."""

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer
        self._outcomes: deque[Outcome] = deque()
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
        return not self._outcomes and not self._writing

    @property
    def backlog(self) -> int:
        return len(self._outcomes)

    def add(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        count = len(self._outcomes)
        if count == 1 or count >= FULL:
            self._wake.set()

    def flush(self) -> None:
        """Don't wait for more."""
        self._urgent = True
        self._wake.set()

    def _loop(self) -> None:
        while self._outcomes or not self._stopping:
            self._linger()
            self.step()
        connections.close_all()
        broker.get().close()

    def _linger(self) -> None:
        """Until a batch is worth its transaction."""
        if not self._outcomes and not self._wake.wait(1.0 if self._care.pending else None):
            self._care.now()
        ends = time.monotonic() + LINGER
        while True:
            self._wake.clear()  # before looking: what is set from here on ends the wait
            if len(self._outcomes) >= FULL or self._urgent or self._stopping:
                break
            if not self._wake.wait(ends - time.monotonic()):
                break
        self._urgent = False

    def step(self) -> None:
        """Write down one batch; keeps trying until it is written."""
        self._writing = True
        self._write_batch()
        self._writing = False

    def _write_batch(self) -> None:
        batch = [self._outcomes.popleft() for _ in range(min(FULL, len(self._outcomes)))]
        if not batch:
            return
        self._persist(lambda: self._drop_lost(batch))
        dead = [o for o in batch if o.kind is Kind.DEAD]
        # The letter first: were the failure recorded before it, a crash between the two would
        # have the next delivery acknowledged as ended, and the message gone.
        self._persist(lambda: self._bury(dead))
        written = [o for o in batch if o.record is not None or o.following is not NOTHING]
        if written:
            self._persist(lambda: _write(written))
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

    def _persist(self, step: Callable[[], None]) -> None:
        """Repeat a step that is safe to repeat until it succeeds."""
        while True:
            try:
                step()
            except AWAY as error:
                connections.close_all()
                time.sleep(self._patience.away(error))
            else:
                self._patience.back()
                return

    def _drop_lost(self, batch: list[Outcome]) -> None:
        """Without the outcomes of deliveries that were taken away, since their lease had ended:
        another worker has them.

        A lease can't have ended of what was claimed less than half of it ago.
        """
        since = time.monotonic() - conf.get().lease_seconds / 2
        old: dict[str, list[int]] = defaultdict(list)
        for o in batch:
            if o.claimed < since and o.held:
                old[o.queue].append(o.number)
        for queue, numbers in old.items():
            lost = set(numbers) - broker.get().held(queue, self._consumer, numbers)
            for o in [o for o in batch if o.queue == queue and o.number in lost and o.held]:
                log.warning(
                    "task %s was taken over by another worker; its outcome here is dropped",
                    o.ended or o.number,
                )
                permits.lose(o.slots)
                batch.remove(o)

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
            else:
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
    try:
        with transaction.atomic(using=ledger.alias()):
            _write_all(outcomes)
    except UNSTORABLE as error:
        if len(outcomes) > 1:
            for outcome in outcomes:
                _write([outcome])
            return
        # No later try could store it, and its task has run: keep what can be kept.
        what = outcomes[0].ended or outcomes[0].number
        log.exception("the record of task %s can't be stored as it is", what)
        with transaction.atomic(using=ledger.alias()):
            _write_all([_bare(outcomes[0], error)])


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


def _bare(outcome: Outcome, error: Exception) -> Outcome:
    """What of it can be stored: not what would follow, which may be what can't be."""
    if outcome.record is not None:
        text = f"The outcome ({outcome.record.state}) could not be stored: {error}"
        outcome.record = outcome.record._replace(
            args="[]", kwargs="{}", result=None, eta=None, error=_plain(text), traceback=""
        )
    outcome.attempt = None
    outcome.following = Following(members=outcome.following.members)
    return outcome


def _plain(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode()
