"""What an operator does: the verbs of the admin and the command line.

This file has those for single calls; `pausing`, `moving` and `overrides` have those for queues and
tasks, and `workers` those for workers. `inspecting`, here ``control.inspect``, only looks.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, transaction

from jobs import (
    broker,
    conf,
    ledger,
    message,
    registry,
)
from jobs.broker.base import Outgoing, Pause
from jobs.conf.values import MOST_AHEAD, is_number, seconds_ahead
from jobs.control import inspecting as inspect
from jobs.control import workers
from jobs.control.moving import (
    change_priority,
    delete,
    find,
    hand_over,
    hasten,
    move,
    move_one,
    purge,
)
from jobs.control.overrides import (
    UNLIMITED,
    RateOverride,
    TimeLimitOverride,
    ask_again,
    rate_limit,
    rate_limits,
    time_limit,
    time_limits,
)
from jobs.control.pausing import (
    pause,
    pause_task,
    paused,
    paused_tasks,
    resume,
    resume_task,
)
from jobs.control.remote import control_command, inspect_command
from jobs.exceptions import BrokerUnavailable, ConfigurationError, MessageError
from jobs.ledger import publish, reopening
from jobs.message import stamps
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State
from jobs.timing import clock

__all__ = [
    "UNLIMITED",
    "Pause",
    "RateOverride",
    "TimeLimitOverride",
    "ask_again",
    "change_priority",
    "control_command",
    "delete",
    "discard",
    "find",
    "hand_over",
    "hasten",
    "inspect",
    "inspect_command",
    "move",
    "move_one",
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
    "revoke_by_stamped_headers",
    "time_limit",
    "time_limits",
    "unrevoke_by_stamped_headers",
    "workers",
]

log = logging.getLogger("jobs.control")

#: The final states of calls that may be run again.
_OVER = (State.FAILURE, State.REVOKED)


def requeue(queue: str, key: str, by: str = "") -> bool:
    """Put a dead letter back on its queue, for workers that can run it now.

    ``key``: that of the `DeadLetter`. ``by``: who does it, for the call's history. False when it is
    gone.
    """
    found = _find(queue, key)
    if found is None:
        return False
    try:
        sent = message.decode(found, queue, trusted=conf.get().queue(queue).open)
    except MessageError:
        # Still unreadable here, but perhaps not for a newer version of the code.
        return broker.get().requeue(queue, key)
    # The row comes first: a worker must not find the end that this undoes.
    attempts = reopening.reopen(sent.id, by=by, behind=sent.embed.get("chain") or ())
    # Without its marks (crashes and the like), for which it would be given up again at once.
    noted = sent.marks.crashes or sent.marks.killed or sent.marks.unknown_since
    raw = None
    if noted or attempts:
        raw = message.mark(found, **message.UNMARKED, jobs_attempts=attempts or 0)
        ledger.rewritten(sent.id, raw)
    return broker.get().requeue(queue, key, sent.priority, raw)


def discard(queue: str, key: str) -> bool:
    """Delete a dead letter for good. Its call ends as REVOKED if it hasn't ended yet. False when it
    is gone."""
    found = _find(queue, key)
    if found is None:
        return False
    # Or `jobs.ledger.recovery` would find a call that should run and has no message.
    with contextlib.suppress(MessageError):  # not signed: the ledger isn't touched
        sent = message.decode(found, queue, trusted=conf.get().queue(queue).open)
        ledger.mark_revoked([sent.id], "discarded")
    return broker.get().discard(queue, key)


def revoke(task_id: str, *, terminate: bool = False, remember: float = 86_400.0) -> None:
    """End a call as REVOKED before it runs, wherever it waits.

    A call that runs already goes on, unless ``terminate`` is set: then its process is killed, and
    other calls of that process are run again. ``remember``: seconds for which the broker keeps the
    revocation; a call that is due later needs more. What is due later ends soon if it has a row in
    the ledger: if it was sent in a transaction, or waits for its next attempt. Otherwise it ends
    when it is due. Celery's workers, where a queue has them, are told as `celery control` does.
    Raises `TypeError` or `ValueError` for what can't be the id of a call or a number of seconds.
    """
    task_id = message.checked_id(task_id)
    remember = _remembered(remember)
    for queue in conf.get().queues:
        broker.get().revoke(queue, task_id, remember, terminate=terminate)
    if conf.foreign_queues():
        # Celery's workers keep it in their memories. One that has the call says that it is revoked.
        said = {"task_id": [task_id], "terminate": terminate, "signal": "SIGTERM"}
        with contextlib.suppress(ConfigurationError):  # in memory, for tests
            broker.get().celery().order("revoke", said)
    # Only now, or it would run. What is due later is claimed at once then, and ends.
    with contextlib.suppress(DatabaseError, SynchronousOnlyOperation):  # it ends when it is due
        rows = TaskResult.objects.using(ledger.alias()).filter(
            id=task_id, state__in=(State.PENDING, State.RETRY), eta__gt=clock.now()
        )
        row = rows.first()
        if row is not None and row.message and row.queue in conf.get().queues:
            _hasten(row)


def revoke_by_stamped_headers(
    headers: Mapping[str, Any] | Sequence[str],
    *,
    terminate: bool = False,
    remember: float = 86_400.0,
    by: str = "",
) -> None:
    """`revoke` all calls that have one of these stamps, also those that are sent while the
    revocation is remembered.

    ``headers``: name → value or list of values, or texts ``name=value``. Numbers are the same as
    their texts. ``by``: who does it, for the log. Calls end as REVOKED when a worker claims them:
    those that are due later, when they are due. A call that is run again by hand ends likewise.
    Raises `ValueError` for what names no stamps, and `TypeError` or `ValueError` for a time that
    is no number of seconds.
    """
    remember = _remembered(remember)
    said = _stamps(headers)
    for queue in conf.get().queues:
        for mark in said:
            broker.get().revoke(queue, mark, remember, terminate=terminate)
    shown = ", ".join(said.values())
    log.warning("calls with the stamps %.500r are revoked by %s", shown, by or "somebody")


def unrevoke_by_stamped_headers(
    headers: Mapping[str, Any] | Sequence[str], *, by: str = ""
) -> None:
    """Take `revoke_by_stamped_headers` back: workers run calls with these stamps again. Calls that
    have already ended as REVOKED stay so, until they are run again by hand.

    ``headers`` and ``by`` are as there. A stamp that isn't revoked is no error. Raises `ValueError`
    for what names no stamps.
    """
    said = _stamps(headers)
    for queue in conf.get().queues:
        for mark in said:
            broker.get().unrevoke(queue, mark)
    shown = ", ".join(said.values())
    log.warning("calls with the stamps %.500r are allowed by %s", shown, by or "somebody")


def _remembered(seconds: float) -> float:
    """At most 1,000 years: a call of Celery's clients may be due in the year 9999. Raises
    `TypeError` or `ValueError` for what is no number of seconds, or far more."""
    if is_number(seconds) and MOST_AHEAD < seconds < 10 * MOST_AHEAD:
        return MOST_AHEAD
    return seconds_ahead("remember", seconds)


def _stamps(headers: Mapping[str, Any] | Sequence[str]) -> dict[str, str]:
    """The mark of each of these stamps → how it is shown. Raises `ValueError`."""
    listed = stamps.listed(headers)
    return {stamps.mark_of(name, value): f"{name}={value}" for name, value in listed}


def retry(task_id: str, by: str = "") -> bool:
    """Run a failed or revoked call again, with all its retries. False: there is no such call, or
    its message isn't kept.

    ``by``: who does it. The call's former attempts stay in the ledger, and the numbers of its
    attempts go on.
    """
    row = TaskResult.objects.using(ledger.alias()).filter(id=task_id, state__in=_OVER).first()
    if row is None or not row.message:
        return False
    sent = message.decode(bytes(row.message), row.queue, trusted=True)
    # Or the same revocation would end it again.
    broker.get().unrevoke(row.queue, task_id)
    if row.queue in conf.foreign_queues():
        with contextlib.suppress(ConfigurationError):  # in memory, for tests
            # Or it would end once more, by its old result.
            broker.celery_ends().forget(task_id)
    with transaction.atomic(using=ledger.alias()):
        attempts = reopening.reopen(task_id, by=by, behind=sent.embed.get("chain") or ())
        if attempts is None:
            return False  # somebody was faster
        again = message.first_attempt(sent, attempts)
        raw = message.encode(again)
        ledger.rewritten(task_id, raw)

        def push() -> None:
            try:
                with broker.get().briefly(insist=True):
                    sending = publish.addressed(Outgoing(row.queue, raw, again.priority))
                    broker.get().push([sending])
            except BrokerUnavailable as error:
                log.warning("task %s is handed to the broker later: %s", task_id, error)
                rows = TaskResult.objects.using(ledger.alias())
                rows.filter(id=task_id, state=State.PENDING).update(published_at=None)

        transaction.on_commit(push, using=ledger.alias())
    return True


def retry_now(task_id: str) -> bool:
    """Run the next attempt of a call now instead of later. False: there is no such call, or its
    message doesn't wait."""
    rows = TaskResult.objects.using(ledger.alias()).filter(id=task_id, state=State.RETRY)
    row = rows.first()
    if row is None:
        return False
    if not _hasten(row):
        return False
    # No change if the attempt is over already.
    now = clock.now()
    if rows.filter(attempts=row.attempts, eta__gt=now).update(eta=now):
        attempts = TaskAttempt.objects.using(ledger.alias()).filter(result_id=task_id)
        attempts.filter(number=row.attempts).update(retry_at=now)
    return True


def _hasten(row: TaskResult) -> bool:
    """Have the message of this call due now. False: it isn't among the due ones."""
    raw = bytes(row.message)
    # Its message as it was put among the due ones, and as `jobs.ledger.recovery` puts it back.
    put_back, priority = message.mark_redelivered(raw, crashed=False)
    return any(broker.get().hasten(row.queue, form, priority) for form in (raw, put_back))


def _find(queue: str, key: str) -> bytes | None:
    letter = broker.get().dead_letter_at(registry.queue(queue), key)
    return letter.raw if letter else None
