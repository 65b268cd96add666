"""What an operator does: the admin's and the command line's verbs.

Here are those for single calls. Those for queues and tasks are in `pausing`, `moving` and `rates`
beside it; what is only looked at is in `inspecting`, here as ``control.inspect``.
"""

from __future__ import annotations

import contextlib
import logging

from django.db import transaction

from jobs import (
    broker,
    conf,
    ledger,
    message,
    registry,
)
from jobs.broker.base import Outgoing, Pause
from jobs.control import inspecting as inspect
from jobs.control.moving import (
    change_priority,
    find,
    move,
    purge,
)
from jobs.control.pausing import (
    pause,
    pause_task,
    paused,
    paused_tasks,
    resume,
    resume_task,
)
from jobs.control.rates import (
    UNLIMITED,
    RateOverride,
    ask_again,
    rate_limit,
    rate_limits,
)
from jobs.exceptions import BrokerUnavailable, MessageError
from jobs.ledger import reopening
from jobs.models import TaskResult
from jobs.states import State
from jobs.timing import clock

__all__ = [
    "UNLIMITED",
    "Pause",
    "RateOverride",
    "ask_again",
    "change_priority",
    "discard",
    "find",
    "inspect",
    "move",
    "pause",
    "pause_task",
    "paused",
    "paused_tasks",
    "purge",
    "rate_limit",
    "rate_limits",
    "requeue",
    "resume",
    "resume_task",
    "retry",
    "retry_now",
    "revoke",
]

log = logging.getLogger("jobs.control")

#: Ended otherwise than well.
_OVER = (State.FAILURE, State.REVOKED)


def requeue(queue: str, key: str) -> bool:
    """Put a dead letter back on its queue, to be run by whoever knows it now.

    ``key``: that of the `DeadLetter`. False when it is gone already.
    """
    found = _find(queue, key)
    if found is None:
        return False
    try:
        sent = message.decode(found, queue, trusted=conf.get().queue(queue).open)
    except MessageError:
        # As unreadable as before, perhaps not for the next version of the code.
        return broker.get().requeue(queue, key)
    # First the row: a worker must not find the end recorded that this undoes.
    reopening.reopen(sent.id, behind=sent.embed.get("chain") or ())
    # It would be given up again at once for what its former workers noted on it.
    noted = sent.crashes or sent.killed or sent.unknown_since
    raw = message.mark(found, **message.UNMARKED) if noted else None
    return broker.get().requeue(queue, key, sent.priority, raw)


def discard(queue: str, key: str) -> bool:
    """Delete a dead letter for good; its call, if it has not ended, ends as REVOKED. False when it
    is gone already."""
    found = _find(queue, key)
    if found is None:
        return False
    # Else `jobs.ledger.recovery` would find a call that is to run and is nowhere.
    with contextlib.suppress(MessageError):  # nobody has vouched for it: the ledger isn't touched
        sent = message.decode(found, queue, trusted=conf.get().queue(queue).open)
        ledger.give_up(sent.id, "discarded")
    return broker.get().discard(queue, key)


def revoke(task_id: str, *, terminate: bool = False, remember: float = 86_400.0) -> None:
    """Have a call end as REVOKED instead of being run, wherever it waits.

    One that runs already goes on, unless ``terminate``: then its process is killed, and whatever
    else that process was running is run again. ``remember``: for how many seconds the revocation
    is kept on the broker; what is due later than that needs more.
    """
    for queue in conf.get().queues:
        broker.get().revoke(queue, task_id, remember, terminate=terminate)


def retry(task_id: str) -> bool:
    """Run a failed or revoked call again, with all its attempts before it. False: there is no such
    call, or its message is not kept."""
    row = TaskResult.objects.using(ledger.alias()).filter(id=task_id, state__in=_OVER).first()
    if row is None or not row.message:
        return False
    again = message.first_attempt(message.decode(bytes(row.message), row.queue, trusted=True))
    raw = message.encode(again)
    # What revoked it would revoke it again.
    broker.get().unrevoke(row.queue, task_id)
    with transaction.atomic(using=ledger.alias()):
        reopening.reopen(task_id, raw, behind=again.embed.get("chain") or ())
        pushed = Outgoing(row.queue, raw, again.priority)
        transaction.on_commit(lambda: _push(task_id, pushed), using=ledger.alias())
    return True


def retry_now(task_id: str) -> bool:
    """Run a call that waits for its next attempt without waiting any longer. False: there is no
    such call, or its message doesn't wait."""
    rows = TaskResult.objects.using(ledger.alias()).filter(id=task_id, state=State.RETRY)
    row = rows.first()
    if row is None:
        return False
    raw = bytes(row.message)
    # As it was put among the due ones, or as `jobs.ledger.recovery` put it back.
    put_back, priority = message.mark_redelivered(raw, crashed=False)
    if not any(broker.get().hasten(row.queue, form, priority) for form in (raw, put_back)):
        return False
    # Unless the attempt is over already.
    rows.filter(attempts=row.attempts, eta__gt=clock.now()).update(eta=clock.now())
    return True


def _push(task_id: str, pushed: Outgoing) -> None:
    try:
        with broker.get().briefly(insist=True):
            broker.get().push([pushed])
    except BrokerUnavailable as error:
        log.warning("task %s is handed to the broker later: %s", task_id, error)
        rows = TaskResult.objects.using(ledger.alias())
        rows.filter(id=task_id, state=State.PENDING).update(published_at=None)


def _find(queue: str, key: str) -> bytes | None:
    letter = broker.get().dead_letter_at(registry.queue(queue), key)
    return letter.raw if letter else None
