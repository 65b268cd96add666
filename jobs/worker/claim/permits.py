"""What a delivery needs besides its message: its unique lock, a slot, a permit of its rate.

Asked for by batch, and only for tasks that need any. What gets none waits among the due messages,
not here: it becomes an outcome like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jobs import (
    broker,
    limits,
    message,
)
from jobs.broker.limiting import GIVEN_BACK, Lock, Permit, Slot, Wish
from jobs.exceptions import BrokerUnavailable, TaskRevoked
from jobs.ledger import unique
from jobs.worker.claim import prepare
from jobs.worker.record.outcome import (
    Delivery,
    Kind,
    Outcome,
    Run,
    limit_of,
)


class Answer(NamedTuple):
    """What may run, in order, and what became of the rest."""

    deliveries: list[Delivery]
    outcomes: list[Outcome]


def needs_any(delivery: Delivery) -> bool:
    return delivery.task.limited or bool(delivery.message.unique)


def ask(deliveries: Sequence[Delivery], run: Run) -> Answer:
    """Ask for what these deliveries need.

    Raises `BrokerUnavailable`, and can then be called again: locks and slots belong to a call
    however often it asks. A permit may be lost by it.
    """
    left = list(deliveries)
    outcomes: list[Outcome] = []
    try:
        # The locks last: one that is held until its call starts is given up there.
        for step in (_with_slots, _with_permits, _with_locks):
            left, ended = step(left, run)
            outcomes += ended
    except BrokerUnavailable:
        lose([slot for d in left for slot in d.slots])  # they go back without
        raise
    return Answer(left, outcomes)


def give_up(slots: Sequence[Slot]) -> None:
    """Give slots back of calls that don't run any more."""
    limits.keeper.forget(slots)
    broker.get().free_slots(slots)


def wait_for(slots: Sequence[Slot]) -> None:
    """Have the calls go on when there is a slot; their messages are among the due ones by now."""
    broker.get().wait_for_slots(slots)


def lose(slots: Sequence[Slot]) -> None:
    """Hold on to these no longer: their calls run elsewhere, under the same names."""
    limits.keeper.forget(slots)


def unlock(locks: Sequence[Lock]) -> None:
    """Let others of these keys be sent: the calls that kept them away have ended."""
    broker.get().unlock(locks)


# -------------------------------------------------------------------------------------- limits


def _with_slots(deliveries: list[Delivery], run: Run) -> Answer:
    asked = [d for d in deliveries if d.task.concurrency is not None]
    if not asked:
        return Answer(deliveries, [])
    names, outcomes = _names(asked, run)
    slots = {
        d.number: Slot(names[d.number], d.task.concurrency, d.message.id, d.queue)
        for d in asked
        if d.number in names and d.task.concurrency is not None
    }
    due = dict(zip(slots, broker.get().take_slots(list(slots.values())), strict=True))
    limits.keeper.keep([slots[number] for number, at in due.items() if not at])
    left = []
    for d in deliveries:
        if d.task.concurrency is None:
            left.append(d)
        elif d.number in names and (at := due[d.number]):
            outcomes.append(_later(d, d.raw, at, slots[d.number]._replace(due=at)))
        elif d.number in names:
            left.append(d._replace(slots=(slots[d.number],)))
    return Answer(left, outcomes)


def _with_permits(deliveries: list[Delivery], run: Run) -> Answer:
    asked = [d for d in deliveries if d.task.rate is not None]
    if not asked:
        return Answer(deliveries, [])
    names, outcomes = _names(asked, run)
    refused = {}
    for d, permit in _permits([d for d in asked if d.number in names], names):
        if permit.wait:
            refused[d.number] = permit.at
            # It comes back at the time that is kept for it, and says so.
            raw = message.mark(d.raw, jobs_due=True, jobs_permit=permit.at)
            outcomes.append(_later(d, raw, permit.at))
    given = names.keys() - refused
    left = []
    for d in deliveries:
        if d.task.rate is None:
            left.append(d)
        elif d.number in given:
            left.append(d._replace(permit=True))
    slots = [s for d in asked if d.number not in names or d.number in refused for s in d.slots]
    if slots:
        give_up(slots)
    return Answer(left, outcomes)


def _permits(asked: list[Delivery], names: dict[int, str]) -> Iterator[tuple[Delivery, Permit]]:
    by_limit: dict[str, list[Delivery]] = {}
    for d in asked:
        by_limit.setdefault(names[d.number], []).append(d)
    wishes = [
        Wish(name, some[0].task.rate, [d.message.permit for d in some])
        for name, some in by_limit.items()
        if some[0].task.rate is not None
    ]
    for some, answers in zip(by_limit.values(), broker.get().permits(wishes), strict=True):
        yield from zip(some, answers, strict=True)


def _names(asked: list[Delivery], run: Run) -> tuple[dict[int, str], list[Outcome]]:
    """Delivery → the name of its limit; and the ends of those whose key can't be made."""
    names, outcomes = {}, []
    for d in asked:
        try:
            names[d.number] = limit_of(d)
        except Exception as error:  # noqa: BLE001  the task's own function
            outcomes.append(prepare.end(d, run, error))
    return names, outcomes


def _later(delivery: Delivery, raw: bytes, due: float, slot: Slot | None = None) -> Outcome:
    """Neither an attempt nor a redelivery: it was not begun."""
    later = Outcome(Kind.LATER, delivery.queue, delivery.number, raw=raw, due=due, waits_for=slot)
    later.priority = delivery.message.priority
    return later


def unstarted(delivery: Delivery) -> bytes | None:
    """The form in which a delivery goes back to its queue; None: as it came. One that had a permit
    asks for the next one before those that had none."""
    return message.mark(delivery.raw, jobs_permit=GIVEN_BACK) if delivery.permit else None


def give_back(deliveries: Sequence[Delivery]) -> None:
    """Give permits back that are not used, if that can be done now: twice would be wrong."""
    unused: dict[str, list[Delivery]] = {}
    for d in deliveries:
        if d.permit:
            unused.setdefault(limit_of(d), []).append(d)
    wishes = [
        Wish(name, some[0].task.rate, (), unused=len(some))
        for name, some in unused.items()
        if some[0].task.rate is not None
    ]
    if wishes:
        with contextlib.suppress(BrokerUnavailable):
            broker.get().permits(wishes)


# -------------------------------------------------------------------------------- unique calls


def _with_locks(deliveries: list[Delivery], run: Run) -> Answer:
    """Senders have taken the locks; but the relay sends without asking, and what is replaced is
    told so here."""
    # One of a window keeps others away, whatever becomes of it.
    locks = {d.number: lock for d in deliveries if (lock := _lock(d))}
    if not locks:
        return Answer(deliveries, [])
    asked = [d for d in deliveries if d.number in locks]
    ends = [d for d in asked if _until(d) == "until_end"]
    starts = [d for d in asked if _until(d) == "until_start"]
    others = dict(_told(ends, broker.get().lock, locks))
    # What was started before goes on, whoever was sent since.
    begun = {d.number for d in starts if d.message.redelivered or d.message.retries}
    others |= {n: other for n, other in _told(starts, broker.get().unlock, locks) if n not in begun}
    lost = [d for d in asked if others.get(d.number)]
    outcomes = [
        prepare.end(d, run, TaskRevoked(f"call {others[d.number]} of the same unique key is there"))
        for d in lost
    ]
    return Answer([d for d in deliveries if not others.get(d.number)], outcomes)


def _lock(delivery: Delivery) -> Lock | None:
    sent, asked = delivery.message, delivery.task.uniqueness
    return unique.lock_of(sent, asked) if sent.unique and asked and asked.until else None


def _until(delivery: Delivery) -> str:
    return delivery.task.uniqueness.until if delivery.task.uniqueness else ""


def _told(
    asked: list[Delivery], verb: Callable[[list[Lock]], list[str]], locks: dict[int, Lock]
) -> list[tuple[int, str]]:
    answers = verb([locks[d.number] for d in asked]) if asked else []
    return [(d.number, answer) for d, answer in zip(asked, answers, strict=True)]
