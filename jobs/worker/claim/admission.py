"""Decides which messages of a claim may run, and makes outcomes of the others.

`prepare` makes a delivery of each message, or its outcome. `admit` then asks ledger and broker
about the deliveries: each question once for a whole claim, and only where there is something to
ask. All questions can be repeated: when database or broker are away, the deliveries go back to
their queue. Last come locks, slots and permits, which only limited and unique tasks need.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from jobs import broker, conf, ledger, limits, message
from jobs.api.task import Task, use_rate
from jobs.broker.base import Claim, Parking, Revocation
from jobs.broker.limiting import GIVEN_BACK, Lock, Slot, Wish
from jobs.broker.sharding import queue_of
from jobs.control import overrides
from jobs.control.metrics import FAILED
from jobs.control.overrides import RateOverride, TimeLimitOverride
from jobs.exceptions import (
    BrokerUnavailable,
    MalformedMessage,
    MessageError,
    QueueRefused,
    TaskEnded,
    TaskRevoked,
    TimeLimitExceeded,
    UnknownTask,
    WorkerLost,
)
from jobs.ledger import unique
from jobs.ledger.refusals import is_refusal
from jobs.message import NO_MARKS, Message, stamps
from jobs.registry import tasks
from jobs.worker.record.following import dead_letter, end_of
from jobs.worker.record.outcome import (
    Dead,
    Delivery,
    Later,
    Outcome,
    Run,
    already_ended,
    buried_types,
    is_kept,
    limit_of,
    most_crashes,
    reason,
    undecided,
)

log = logging.getLogger("jobs.worker")

#: Seconds until a message whose task is unknown here is offered again.
_OFFER_AGAIN = 5.0
#: Seconds until a copy of a call that is running here is looked at again.
_COPY_AGAIN = 2.0
#: How many of the newest dead letters are searched for a message.
_LETTERS = 1000
#: Seconds between two looks at the overrides, at least.
_EVERY = 3.0
#: Seconds between two tries while they can't be read.
_ASK_AGAIN = 1.0


class Answer(NamedTuple):
    """What may run, in order, and the outcomes of the rest."""

    deliveries: list[Delivery]
    outcomes: list[Outcome]


# ----------------------------------------------------------------------------- message by message


def prepare(
    queue: str,
    number: int,
    raw: bytes,
    worker: str,
    now: float,
    claimed: float = math.inf,
    trusted: bool | None = None,
) -> Delivery | Outcome:
    """The delivery to run or, for a message that is not to run now, its outcome.

    ``queue``: the shard that it was claimed from.
    ``now``: Unix seconds. ``claimed``: monotonic ones. ``trusted``: whether the queue is open;
    None: as the settings say.
    """
    if trusted is None:
        trusted = conf.get().queue(queue_of(queue)).open
    try:
        try:
            sent = message.decode(raw, queue_of(queue), trusted)
        except MessageError as error:
            if isinstance(error, MalformedMessage) and error.call is not None:
                return dead_letter(queue, number, raw, error.call, Run(worker, now), error)
            # No signature says whose call it is; the recorder asks whether the ledger knows it.
            return Dead(queue, number, counts=FAILED, reason=reason(error), raw=raw)
        task = tasks.get(sent.task)
        if task is None:
            return _unknown(queue, number, raw, sent, Run(worker, now))
        sent.sensitive = task.sensitive
        delivery = Delivery(queue, number, raw, sent, task, claimed)
        if sent.marks is not NO_MARKS and (why := _lost(sent, task)):
            return end_of(delivery, Run(worker, now), why)
        if sent.expires is not None and sent.expires.timestamp() <= now:
            return end_of(delivery, Run(worker, now), TaskRevoked("expired"))
        if sent.eta is not None and not sent.held and sent.eta.timestamp() > now:
            # From a producer that doesn't know of due messages (Celery).
            return _later(delivery, message.mark(raw, jobs_due=True), sent.eta.timestamp())
    except Exception as error:  # noqa: BLE001  it is logged there
        return undecided(queue, number, raw, trusted, Run(worker, now), error)
    return delivery


def _lost(sent: Message, task: Task[..., Any]) -> TaskEnded | TaskRevoked | None:
    """Why a message that its former processes did not survive is not to run again."""
    if sent.marks.killed == message.Killed.TIME_LIMIT:
        return TimeLimitExceeded(f"Task {task.name!r} ran longer than its time limit.")
    if sent.marks.killed == message.Killed.REVOKED:
        return TaskRevoked("terminated")
    if sent.marks.killed == message.Killed.PURGED:
        return TaskRevoked("purged")
    crashes, most = sent.marks.crashes, most_crashes(task)
    if crashes > most:
        return WorkerLost(
            f"{crashes} {'process' if crashes == 1 else 'processes'} died while running "
            f"task {task.name!r}[{sent.id}]; at most {most} may."
        )
    return None


#: Tasks of which this process has said that it doesn't know them; the names are anybody's.
_told_unknown: set[str] = set()
_TOLD_MOST = 1000


def _tell_unknown(name: str) -> None:
    """Say once what a worker that runs older code than the sender, or other code, can't run."""
    if name in _told_unknown or len(_told_unknown) >= _TOLD_MOST:
        return
    _told_unknown.add(name)
    log.warning(
        "no task %.200r is known to this process;%s its calls are offered again for %g seconds, "
        "to workers with other code. Restart this one if its code is old",
        name,
        conf.nearest(name, tasks),
        conf.get().unknown_task_seconds,
    )


def _unknown(queue: str, number: int, raw: bytes, sent: Message, run: Run) -> Outcome:
    """While new code is being rolled out, other workers may know the task: offer the message
    again. Later it is a dead letter."""
    # No signature covers this mark: a time in the future would have it offered for ever.
    first_seen = min(sent.marks.unknown_since or run.started, run.started)
    if run.started - first_seen < conf.get().unknown_task_seconds:
        _tell_unknown(sent.task)
        return Later(
            queue,
            number,
            raw=message.mark(raw, jobs_unknown_since=first_seen, jobs_due=True),
            priority=sent.priority,
            due=time.time() + _OFFER_AGAIN,
        )
    error = UnknownTask(
        f"No task {sent.task!r} is known here.{conf.nearest(sent.task, tasks)} Deploy the code "
        "that has it and requeue the message, or discard it."
    )
    return dead_letter(queue, number, raw, sent, run, error)


# --------------------------------------------------------------------------------- claim by claim


def admit(
    queue: str,
    claim: Claim,
    deliveries: list[Delivery],
    run: Run,
    here: Callable[[], set[str]] = set,
) -> Answer:
    """Which of these deliveries may run.

    ``here``: the ids of the calls that this process claimed before and has not recorded yet.
    Raises `BrokerUnavailable` or Django's `DatabaseError`. A message that the database refuses to
    be asked about ends; the others go on.
    """
    try:
        left, outcomes = _without_ended(deliveries, queue, run, here)
        if left and claim.revocations:
            said = revocations(queue, left)
            revoked = {d.number for d, found in zip(left, said, strict=True) if found}
            gone = [d for d in left if d.number in revoked]
            outcomes += [end_of(d, run, TaskRevoked("revoked")) for d in gone]
            left = [d for d in left if d.number not in revoked]
        if left and claim.paused_tasks:
            # The broker keeps them among what is due until their task is resumed.
            asked = [Parking(d.number, d.message.priority, d.task.name) for d in left]
            parked = broker.get().park(queue, run.worker, asked)
            left = [d for d in left if d.number not in parked]
        # A list: `any` with a generator takes ten times as long.
        if [d for d in left if d.task.limited or d.message.unique]:
            left, ended = ask(left, run)
            outcomes += ended
        return Answer(left, outcomes)
    except Exception as error:
        if not is_refusal(error):
            raise
        if len(deliveries) == 1:
            (d,) = deliveries
            return Answer([], [undecided(queue, d.number, d.raw, True, run, error)])
    answers = [admit(queue, claim, [d], run, here) for d in deliveries]
    return Answer(
        [d for answer in answers for d in answer.deliveries],
        [outcome for answer in answers for outcome in answer.outcomes],
    )


def revocations(queue: str, deliveries: Sequence[Delivery]) -> list[Revocation]:
    """Whether each of these calls is revoked, by its id or by one of its stamps."""
    marks = [[d.message.id, *stamps.marks_of(d.message)] for d in deliveries]
    said = iter(broker.get().revoked(queue, [*itertools.chain.from_iterable(marks)]))
    return [max(itertools.islice(said, len(some))) for some in marks]


def _without_ended(
    deliveries: list[Delivery], queue: str, run: Run, here: Callable[[], set[str]]
) -> Answer:
    """Leave out calls whose end is recorded, and all but one copy of each call.

    The ledger is asked only about what may have been delivered before: messages that were put back,
    and those that are old enough for the relay to have published them twice, or for somebody to
    have copied them.
    """
    # Half of the relay's grace: clocks differ.
    old = run.started - conf.get().relay_after_seconds / 2
    doubtful = set()
    for d in deliveries:
        if d.message.marks.redelivered:
            doubtful.add(d.message.id)
        elif is_kept(d.message, d.task):
            sent = message.id_time(d.message.id)
            if sent is None or sent < old:
                doubtful.add(d.message.id)
    if not doubtful:
        return Answer(deliveries, [])
    # Before the ledger is asked: what leaves this process from here on is recorded by then.
    redelivered = {d.message.id for d in deliveries if d.message.marks.redelivered}
    begun = here() if redelivered else set()
    ended = ledger.ended(list(doubtful))
    if again := {
        d.message.id: d.message.root_id or d.message.id
        for d in deliveries
        if d.message.celery and d.message.id in redelivered and d.message.id not in ended
    }:
        # A call that has ended is sent anew in another workflow of a Celery client: the row, which
        # is open, is that one's. See `joining`.
        now = ledger.roots(list(again), ended=False)
        ended |= {task_id for task_id, root in now.items() if root != again[task_id]}
    reasons = _unburied(redelivered & ended, queue)
    left, outcomes = [], []
    for d in deliveries:
        if d.message.id in ended:
            why = reasons.get(d.message.id) if d.message.marks.redelivered else None
            outcomes.append(already_ended(d, why))
        elif d.message.id in begun and is_kept(d.message, d.task):
            # Its copy is running here. This one comes again when that may have ended, and runs
            # should it come to nothing.
            raw, _ = message.mark_redelivered(d.raw, crashed=False)
            outcomes.append(_later(d, raw, time.time() + _COPY_AGAIN))
        else:
            left.append(d)
            begun.add(d.message.id)
    return Answer(left, outcomes)


def _unburied(ids: set[str], queue: str) -> dict[str, str]:
    """Which of these ended calls lack their dead letter, since their worker died right after it
    had recorded the end: id → why the message is to be one."""
    reasons = ledger.reasons(list(ids), buried_types()) if ids else {}
    if not reasons:
        return {}
    with contextlib.suppress(QueueRefused):
        for letter in broker.by_shard().dead_letters(queue, _LETTERS):
            with contextlib.suppress(MessageError):
                reasons.pop(message.decode(letter.raw, queue, trusted=True).id, None)
    return reasons


# ------------------------------------------------------------------------ locks, slots and permits


def ask(deliveries: list[Delivery], run: Run) -> Answer:
    """Ask for the locks, slots and permits that these deliveries need. What gets none waits among
    the due messages, not here: it becomes an outcome like any other.

    Raises `BrokerUnavailable`, and can then be called again: locks and slots belong to a call,
    however often it asks. A permit may be lost by it.
    """
    left = deliveries
    outcomes: list[Outcome] = []
    try:
        # The locks last: one that is held until its call starts is given up there.
        for step in (_with_slots, _with_permits, _with_locks):
            left, ended = step(left, run)
            outcomes += ended
    except BrokerUnavailable:
        limits.keeper.forget([slot for d in left for slot in d.slots])  # they go back without
        raise
    return Answer(left, outcomes)


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
            left.append(replace(d, slots=(slots[d.number],)))
    return Answer(left, outcomes)


def _with_permits(deliveries: list[Delivery], run: Run) -> Answer:
    asked = [d for d in deliveries if d.task.rate is not None]
    if not asked:
        return Answer(deliveries, [])
    names, outcomes = _names(asked, run)
    by_limit: dict[str, list[Delivery]] = {}
    for d in asked:
        if d.number in names:
            by_limit.setdefault(names[d.number], []).append(d)
    wishes = [
        Wish(name, some[0].task.rate, [d.message.marks.permit for d in some])
        for name, some in by_limit.items()
        if some[0].task.rate is not None
    ]
    given = set()
    for some, permits in zip(by_limit.values(), broker.get().permits(wishes), strict=True):
        for d, permit in zip(some, permits, strict=True):
            if permit.wait:
                # It comes back at the time that is kept for it, and says so.
                raw = message.mark(d.raw, jobs_due=True, jobs_permit=permit.at)
                outcomes.append(_later(d, raw, permit.at))
            else:
                given.add(d.number)
    if slots := [slot for d in asked if d.number not in given for slot in d.slots]:
        limits.keeper.free(slots)
    left = []
    for d in deliveries:
        if d.task.rate is None:
            left.append(d)
        elif d.number in given:
            left.append(replace(d, permit=True))
    return Answer(left, outcomes)


def _with_locks(deliveries: list[Delivery], run: Run) -> Answer:
    """Senders have taken the locks already; but the relay sends without asking, and a call learns
    here that another has replaced it."""
    wanted: dict[str, list[tuple[Delivery, Lock]]] = {}
    for d in deliveries:
        asked = d.task.uniqueness
        # Without `until`: a window's lock stays, whatever becomes of the call.
        if d.message.unique and asked and asked.until:
            lock = unique.lock_of(d.message, asked)
            wanted.setdefault(asked.until, []).append((d, lock))
    others: dict[int, str] = {}
    for until, verb in (("until_end", broker.get().lock), ("until_start", broker.get().unlock)):
        some = wanted.get(until, [])
        answers = verb([lock for _, lock in some]) if some else []
        for (d, _), other in zip(some, answers, strict=True):
            # A call that was started before goes on, whoever was sent since.
            begun = until == "until_start" and (d.message.marks.redelivered or d.message.retries)
            if other and not begun:
                others[d.number] = other
    if not others:
        return Answer(deliveries, [])
    outcomes = [
        end_of(d, run, TaskRevoked(f"call {others[d.number]} of the same unique key is there"))
        for d in deliveries
        if d.number in others
    ]
    return Answer([d for d in deliveries if d.number not in others], outcomes)


def _names(asked: list[Delivery], run: Run) -> tuple[dict[int, str], list[Outcome]]:
    """Delivery number → the name of its limit; and the ends of calls whose key can't be made."""
    names, outcomes = {}, []
    for d in asked:
        try:
            names[d.number] = limit_of(d)
        except Exception as error:  # noqa: BLE001  the task's own function
            outcomes.append(end_of(d, run, error))
    return names, outcomes


def _later(delivery: Delivery, raw: bytes, due: float, slot: Slot | None = None) -> Outcome:
    """Put it among the due messages: neither an attempt nor a redelivery, since it didn't begin."""
    return Later(
        delivery.queue,
        delivery.number,
        delivery.claimed,
        raw=raw,
        priority=delivery.message.priority,
        due=due,
        waits_for=slot,
    )


def unstarted(delivery: Delivery) -> bytes | None:
    """The form in which a delivery goes back to its queue; None: as it came. A call that had a
    permit gets the next one before those that had none."""
    return message.mark(delivery.raw, jobs_permit=GIVEN_BACK) if delivery.permit else None


def return_permits(deliveries: Sequence[Delivery]) -> None:
    """Return unused permits, if the broker answers now: to repeat it might give them twice."""
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


class Overrides:
    """The rates and time limits that operators have set, as one child knows them. It looks before a
    claim, so that no message waits for the look."""

    def __init__(self) -> None:
        #: What the broker said last: read anew only when it says something else.
        self._texts: Mapping[str, bytes] = {}
        self._known: Mapping[str, RateOverride] = {}
        self._limits: Mapping[str, TimeLimitOverride] = {}
        self._next = float("-inf")

    def look(self, now: float) -> None:
        """Have the tasks ask for permits of the rates that are set now, and run within the time
        limits, if it is time for a look.

        ``now``: monotonic seconds. Raises `BrokerUnavailable`.
        """
        if now < self._next:
            return
        try:
            texts = broker.get().overrides()
        except BrokerUnavailable as error:
            if not error.partly or self._next == float("-inf"):
                raise
            self._next = now + _ASK_AGAIN  # the node that has them is away; queues are on others
            return
        if texts != self._texts:
            self._use_rates(overrides.read_rates(texts))
            self._use_time_limits(overrides.read_time_limits(texts))
            self._texts = texts
        self._next = now + _EVERY

    def _use_rates(self, said: Mapping[str, RateOverride]) -> None:
        for name in sorted(self._known.keys() | said.keys()):
            task, override = tasks.get(name), said.get(name)
            if task is None or override == self._known.get(name):
                continue  # other workers have the task, or nothing has changed
            if override is None:
                use_rate(task, task.options.rate())
                log.info("task %s: the rate of its code counts again", name)
            else:
                use_rate(task, override.parsed())
                by = override.by or "somebody"
                log.info("task %s: the rate %s counts, set by %s", name, override, by)
        self._known = said

    def _use_time_limits(self, said: Mapping[str, TimeLimitOverride]) -> None:
        for name in sorted(self._limits.keys() | said.keys()):
            task, override = tasks.get(name), said.get(name)
            if task is None or override == self._limits.get(name):
                continue
            if override is None:
                _use_own_time_limits(task)
                log.info("task %s: the time limits of its code count again", name)
            else:
                task.soft_time_limit, task.time_limit = override.soft, override.hard
                by = override.by or "somebody"
                log.info("task %s: the time limits %s count, set by %s", name, override, by)
        self._limits = said

    def end(self) -> None:
        """The tasks have the rates and time limits of their code again."""
        for task in map(tasks.get, self._known):
            if task:
                use_rate(task, task.options.rate())
        for task in map(tasks.get, self._limits):
            if task:
                _use_own_time_limits(task)


def _use_own_time_limits(task: Task[..., Any]) -> None:
    task.soft_time_limit = task.options.soft_time_limit
    task.time_limit = task.options.time_limit
