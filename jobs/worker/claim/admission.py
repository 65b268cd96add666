"""Which of the deliveries that were claimed are run now, and what becomes of the others.

Each question is asked for a whole claim, and only where there is something to ask. Nothing is
changed that can't be asked again: when database or broker are away, all of them go back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from jobs import broker, conf, ledger, message
from jobs.api.task import use_rate
from jobs.broker.base import Claim, Parking
from jobs.control import rates
from jobs.control.rates import RateOverride
from jobs.exceptions import MessageError, QueueRefused, TaskRevoked
from jobs.registry import tasks
from jobs.worker.claim import permits, prepare
from jobs.worker.claim.permits import Answer
from jobs.worker.record import outcome as rows
from jobs.worker.record.outcome import (
    Delivery,
    Kind,
    Outcome,
    Run,
)

log = logging.getLogger("jobs.worker")

#: Seconds between two looks, at least.
_EVERY = 3.0


class Overrides:
    """One child's. Looked at before a claim, so a message never waits for it."""

    def __init__(self) -> None:
        self._known: Mapping[str, RateOverride] = {}
        self._next = float("-inf")

    def look(self, now: float) -> None:
        """Have the tasks ask for permits of what is set now, if it is time for a look.

        ``now``: monotonic seconds. Raises `BrokerUnavailable`.
        """
        if now < self._next:
            return
        said = rates.rate_limits()
        self._next = now + _EVERY
        for name in sorted(self._known.keys() | said.keys()):
            if said.get(name) != self._known.get(name):
                _apply(name, said.get(name))
        self._known = said

    def end(self) -> None:
        """The tasks have the rates of their code again."""
        for task in map(tasks.get, self._known):
            if task:
                use_rate(task, task.options.rate())


def _apply(name: str, said: RateOverride | None) -> None:
    task = tasks.get(name)
    if task is None:
        return  # other workers have it
    if said is None:
        use_rate(task, task.options.rate())
        log.info("task %s: the rate of its code counts again", name)
    else:
        use_rate(task, said.parsed())
        log.info("task %s: the rate %s counts, set by %s", name, said, said.by or "somebody")


#: Seconds until a copy of a call that is just being run is looked at again.
_COPY_AGAIN = 2.0
#: Newest dead letters among which a message is looked for.
_LETTERS = 1000

Step = Callable[[list[Delivery]], Answer]


def admit(
    queue: str,
    claim: Claim,
    deliveries: list[Delivery],
    run: Run,
    here: Callable[[], set[str]] = set,
) -> Answer:
    """``here``: the ids of the calls that this process has claimed before and not recorded yet.

    Raises `BrokerUnavailable` or Django's `DatabaseError`."""
    steps: list[Step] = [functools.partial(_without_ended, queue=queue, run=run, here=here)]
    if claim.revocations:
        steps.append(functools.partial(_without_revoked, queue=queue, run=run))
    if claim.paused_tasks:
        steps.append(functools.partial(_without_paused, queue=queue, run=run))
    if any(map(permits.needs_any, deliveries)):
        steps.append(functools.partial(permits.ask, run=run))
    left: list[Delivery] = deliveries
    outcomes: list[Outcome] = []
    for step in steps:
        if left:
            left, ended = step(left)
            outcomes += ended
    return Answer(left, outcomes)


def _without_ended(
    deliveries: list[Delivery], queue: str, run: Run, here: Callable[[], set[str]]
) -> Answer:
    """Those whose end isn't recorded, and each call once. Only what may have been delivered before
    is asked for: what was put back, and what is older than a message that just comes: the relay may
    have published it a second time, or somebody who had copied it."""
    doubtful = {d.number: d.message.id for d in deliveries if _is_doubtful(d, run.started)}
    if not doubtful:
        return Answer(deliveries, [])
    # Before the ledger is asked: what leaves this process from here on is recorded by then.
    begun = here() if any(d.message.redelivered for d in deliveries) else set()
    ended = ledger.ended(list(set(doubtful.values())))
    reasons = _unburied({d.message.id for d in deliveries if d.message.redelivered} & ended, queue)
    left, outcomes = [], []
    for d in deliveries:
        if d.message.id in ended:
            reason = reasons.get(d.message.id) if d.message.redelivered else None
            outcomes.append(prepare.already_ended(d, reason))
        elif d.message.id in begun and rows.is_kept(d.message, d.task):
            outcomes.append(_after_the_other(d))
        else:
            left.append(d)
            begun.add(d.message.id)
    return Answer(left, outcomes)


def _unburied(ids: set[str], queue: str) -> dict[str, str]:
    """Those of these ended calls whose messages should be dead letters and aren't, since their
    worker died after it had recorded the end: id → why."""
    reasons = ledger.reasons(list(ids), prepare.buried_types()) if ids else {}
    if not reasons:
        return {}
    with contextlib.suppress(QueueRefused):
        for letter in broker.get().dead_letters(queue, _LETTERS):
            with contextlib.suppress(MessageError):
                reasons.pop(message.decode(letter.raw, queue, trusted=True).id, None)
    return reasons


def _after_the_other(delivery: Delivery) -> Outcome:
    """A copy of a call that this process is at: it comes again when that may have ended, so that it
    is there if that comes to nothing."""
    raw, priority = message.mark_redelivered(delivery.raw, crashed=False)
    again = Outcome(Kind.LATER, delivery.queue, delivery.number, raw=raw, priority=priority)
    again.due = time.time() + _COPY_AGAIN
    return again


def _is_doubtful(delivery: Delivery, now: float) -> bool:
    if delivery.message.redelivered:
        return True
    return rows.is_kept(delivery.message, delivery.task) and _is_old(delivery, now)


def _is_old(delivery: Delivery, now: float) -> bool:
    sent = message.id_time(delivery.message.id)
    # Half of the relay's grace: clocks differ.
    return sent is None or now - sent > conf.get().relay_after_seconds / 2


def _without_revoked(deliveries: Sequence[Delivery], queue: str, run: Run) -> Answer:
    said = broker.get().revoked(queue, [d.message.id for d in deliveries])
    told = list(zip(deliveries, said, strict=True))
    return Answer(
        [d for d, revocation in told if not revocation],
        [prepare.end(d, run, TaskRevoked("revoked")) for d, revocation in told if revocation],
    )


def _without_paused(deliveries: Sequence[Delivery], queue: str, run: Run) -> Answer:
    """Those whose tasks aren't paused; the others wait among what is due."""
    asked = [Parking(d.number, d.message.priority, d.task.name) for d in deliveries]
    parked = broker.get().park(queue, run.worker, asked)
    return Answer([d for d in deliveries if d.number not in parked], [])
