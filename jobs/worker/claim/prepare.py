"""A message as it was claimed, to the delivery to run or, where it isn't to be run, its outcome."""

from __future__ import annotations

import logging
import time
from typing import Any

from jobs import conf, ledger, message
from jobs.api.task import Task
from jobs.exceptions import (
    MalformedMessage,
    MessageError,
    Reject,
    TaskEnded,
    TaskRevoked,
    TimeLimitExceeded,
    UnknownTask,
    WorkerLost,
)
from jobs.message import Message
from jobs.registry import tasks
from jobs.states import State
from jobs.worker.record import outcome as rows
from jobs.worker.record.following import after_end
from jobs.worker.record.outcome import (
    Delivery,
    Kind,
    Outcome,
    Run,
    lock_of,
    reason,
    slots_of,
)

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
