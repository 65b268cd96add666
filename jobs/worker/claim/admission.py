"""From a claimed message to the delivery to run or, where it isn't to be run, its outcome.

Each question is asked for a whole claim, and only where there is something to ask. Nothing is
changed that can't be asked again: when database or broker are away, all of them go back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jobs import broker, conf, ledger, limits, message
from jobs.api.task import Task, use_rate
from jobs.broker.base import Claim, Parking
from jobs.broker.limiting import Lock, Slot, Wish
from jobs.broker.rates import GIVEN_BACK, Permit
from jobs.control import rates
from jobs.control.rates import RateOverride
from jobs.exceptions import (
    BrokerUnavailable,
    MalformedMessage,
    MessageError,
    QueueRefused,
    Reject,
    TaskEnded,
    TaskRevoked,
    TimeLimitExceeded,
    UnknownTask,
    WorkerLost,
)
from jobs.ledger import unique
from jobs.message import Message
from jobs.registry import tasks
from jobs.states import State
from jobs.worker.record import rows
from jobs.worker.record.following import after_end
from jobs.worker.record.outcome import (
    Delivery,
    Kind,
    Outcome,
    limit_of,
    lock_of,
    slots_of,
)
from jobs.worker.record.rows import Run

log = logging.getLogger("jobs.worker")

#: The ends of calls whose messages are kept as dead letters.
_BURIED = (WorkerLost, MessageError, Reject)

#: Seconds before a message whose task is unknown here is offered again.
_OFFER_AGAIN = 5.0


def prepare(
    queue: str,
    number: int,
    raw: bytes,
    *,
    worker: str,
    now: float,
    claimed: float = 0.0,
    trusted: bool | None = None,
) -> Delivery | Outcome:
    """The delivery to run or, for a message that is not to be run now, its outcome.

    ``now``: Unix seconds. ``claimed``: monotonic ones. ``trusted``: whether the queue is open;
    None: as the settings say.
    """
    if trusted is None:
        trusted = conf.get().queue(queue).open
    try:
        return _prepare(queue, number, raw, trusted, worker, now, claimed)
    except Exception as error:  # noqa: BLE001  it is logged there
        return given_up(queue, number, raw, trusted, Run(worker, now), error)


def given_up(
    queue: str, number: int, raw: bytes, trusted: bool, run: Run, error: Exception
) -> Outcome:
    """`undecided`, of which the ledger is told if it is known whose call it is."""
    outcome = undecided(queue, number, "", error, raw)
    try:
        sent = _call_of(raw, queue, trusted)
        outcome.record = ledger.bounded(rows.failure(sent, raw, run, error))
    except Exception:
        log.exception("message %s of queue %s: its call can't be said to have ended", number, queue)
    else:
        outcome.ended = sent.id
    return outcome


def _call_of(raw: bytes, queue: str, trusted: bool) -> Message:
    """Raises `MessageError` where nobody vouches for it."""
    try:
        return message.decode(raw, queue, trusted=trusted)
    except MalformedMessage as error:
        if isinstance(error.call, Message):
            return error.call
        raise


def undecided(queue: str, number: int, task_id: str, error: Exception, raw: bytes = b"") -> Outcome:
    """No message may end the process, which would claim it again, and again end."""
    log.error("message %s of queue %s stops here", task_id or number, queue, exc_info=error)
    why = f"No outcome could be made of it: {reason(error)}"
    return Outcome(Kind.DEAD, queue, number, ended=task_id, reason=why, raw=raw, failed=True)


def _prepare(
    queue: str, number: int, raw: bytes, trusted: bool, worker: str, now: float, claimed: float
) -> Delivery | Outcome:
    try:
        sent = message.decode(raw, queue, trusted=trusted)
    except MessageError as error:
        if isinstance(error, MalformedMessage) and error.call is not None:
            return _dead(queue, number, raw, error.call, Run(worker, now), error)
        # Its signature vouches for nobody; the recorder asks whether the ledger does.
        return Outcome(Kind.DEAD, queue, number, reason=reason(error), raw=raw)
    task = tasks.get(sent.task)
    if task is None:
        return _unknown(queue, number, raw, sent, Run(worker, now))
    sent.sensitive = task.sensitive
    delivery = Delivery(queue, number, raw, sent, task, claimed)
    if sent.crashes or sent.killed:
        ended = _lost(delivery)
        if ended is not None:
            return end(delivery, Run(worker, now), ended)
    if sent.expires is not None and sent.expires.timestamp() <= now:
        return end(delivery, Run(worker, now), TaskRevoked("expired"))
    if sent.eta is not None and not sent.held and sent.eta.timestamp() > now:
        return _not_yet(delivery, sent.eta.timestamp())
    return delivery


def end(delivery: Delivery, run: Run, why: Exception) -> Outcome:
    """The outcome of a delivery that is not run, or no longer: REVOKED, FAILURE, or for one that
    kills workers the dead letters besides."""
    state = State.REVOKED if isinstance(why, TaskRevoked) else State.FAILURE
    kind = Kind.DEAD if isinstance(why, _BURIED) else Kind.DONE
    sent = delivery.message
    keeps = kind is Kind.DEAD or rows.is_kept(sent, delivery.task)
    row = rows.failure(sent, delivery.raw, run, why, state) if keeps else None
    return Outcome(
        kind,
        delivery.queue,
        delivery.number,
        record=row,
        ended=sent.id,
        reason=reason(why) if kind is Kind.DEAD else "",
        raw=delivery.raw if kind is Kind.DEAD else b"",
        following=after_end(sent, delivery.raw, run, why, state),
        slots=slots_of(delivery),
        lock=lock_of(sent, delivery.task),
    )


def buried_types() -> set[str]:
    """The `error_type` of ends whose messages are dead letters."""
    found: list[type[BaseException]] = list(_BURIED)
    for one in found:  # it grows meanwhile
        found += one.__subclasses__()
    return {rows.kind_of(one) for one in found}


def already_ended(delivery: Delivery, unburied: str | None = None) -> Outcome:
    """Its outcome is recorded: a former delivery got as far as that. ``unburied``: why its message
    is a dead letter, where it did not get that far."""
    sent = delivery.message
    done = Outcome(Kind.DONE, delivery.queue, delivery.number, ended=sent.id)
    if unburied is not None:
        done.kind, done.reason, done.raw = Kind.DEAD, unburied, delivery.raw
    done.slots, done.lock = slots_of(delivery), lock_of(sent, delivery.task)
    return done


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {rows.shortened(rows.text_of(error))}"


def most_crashes(task: Task[..., Any]) -> int:
    own = task.options.max_crashes
    return conf.get().max_crashes if own is None else own


def _lost(delivery: Delivery) -> TaskEnded | TaskRevoked | None:
    """Why a message that its former processes did not survive is not run again."""
    sent, task = delivery.message, delivery.task
    if sent.killed == message.Killed.TIME_LIMIT:
        return TimeLimitExceeded(f"Task {task.name!r} ran longer than its time limit.")
    if sent.killed == message.Killed.REVOKED:
        return TaskRevoked("terminated")
    if sent.killed == message.Killed.PURGED:
        return TaskRevoked("purged")
    most = most_crashes(task)
    if sent.crashes > most:
        return WorkerLost(
            f"{sent.crashes} {'process' if sent.crashes == 1 else 'processes'} died while running "
            f"task {task.name!r}[{sent.id}]; {most} may."
        )
    return None


def _unknown(queue: str, number: int, raw: bytes, sent: Message, run: Run) -> Outcome:
    """While new code is being rolled out, other workers may know the task."""
    # No signature covers it: were it later than now, the message would be offered for ever.
    first_seen = min(sent.unknown_since or run.started, run.started)
    if run.started - first_seen < conf.get().unknown_task_seconds:
        again = message.mark(raw, jobs_unknown_since=first_seen, jobs_due=True)
        return Outcome(
            Kind.LATER,
            queue,
            number,
            raw=again,
            priority=sent.priority,
            due=time.time() + _OFFER_AGAIN,
        )
    error = UnknownTask(
        f"No task {sent.task!r} is known here.{conf.nearest(sent.task, tasks)} Deploy the code "
        "that has it and requeue the message, or discard it."
    )
    return _dead(queue, number, raw, sent, run, error)


def _dead(
    queue: str, number: int, raw: bytes, sent: Message, run: Run, error: MessageError
) -> Outcome:
    """A dead letter, whose call ends in the ledger whether or not it wants its result kept."""
    task = tasks.get(sent.task)
    if task is not None:
        sent.sensitive = task.sensitive
    return Outcome(
        Kind.DEAD,
        queue,
        number,
        record=rows.failure(sent, raw, run, error),
        ended=sent.id,
        reason=reason(error),
        following=after_end(sent, raw, run, error),
        lock=lock_of(sent, task),
    )


def _not_yet(delivery: Delivery, eta: float) -> Outcome:
    """From a producer that knows no due set (Celery)."""
    return Outcome(
        Kind.LATER,
        delivery.queue,
        delivery.number,
        raw=message.mark(delivery.raw, jobs_due=True),
        priority=delivery.message.priority,
        due=eta,
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
            outcomes.append(end(d, run, error))
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
        end(d, run, TaskRevoked(f"call {others[d.number]} of the same unique key is there"))
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
    if any(map(needs_any, deliveries)):
        steps.append(functools.partial(ask, run=run))
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
            outcomes.append(already_ended(d, reason))
        elif d.message.id in begun and rows.is_kept(d.message, d.task):
            outcomes.append(_after_the_other(d))
        else:
            left.append(d)
            begun.add(d.message.id)
    return Answer(left, outcomes)


def _unburied(ids: set[str], queue: str) -> dict[str, str]:
    """Those of these ended calls whose messages should be dead letters and aren't, since their
    worker died after it had recorded the end: id → why."""
    reasons = ledger.reasons(list(ids), buried_types()) if ids else {}
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
        [end(d, run, TaskRevoked("revoked")) for d, revocation in told if revocation],
    )


def _without_paused(deliveries: Sequence[Delivery], queue: str, run: Run) -> Answer:
    """Those whose tasks aren't paused; the others wait among what is due."""
    asked = [Parking(d.number, d.message.priority, d.task.name) for d in deliveries]
    parked = broker.get().park(queue, run.worker, asked)
    return Answer([d for d in deliveries if d.number not in parked], [])
