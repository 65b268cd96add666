"""What Celery's workers say of a call, as an outcome: the reverse of `celery_results`.

Celery's keys are not signed. What they say is taken for the end of a call that waits for one; what
follows it comes from the ledger's own message.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

from jobs import ledger, message, serialization
from jobs.api.results import rebuild
from jobs.control.metrics import FAILED, REVOKED, SUCCEEDED
from jobs.exceptions import JobsError, MessageError, TaskRevoked
from jobs.ledger.outcomes import Record
from jobs.message import Message
from jobs.models import TaskResult
from jobs.registry import tasks
from jobs.states import State
from jobs.timing import clock
from jobs.worker.record.following import after_end, after_success
from jobs.worker.record.outcome import (
    NOTHING,
    Done,
    Following,
    Outcome,
    Run,
    failure,
    lock_of,
    of_success,
    shortened,
)

log = logging.getLogger("jobs.worker")

#: What stands for a worker of Celery's that doesn't say its name, unless its app has
#: ``result_extended``.
WORKER = "celery"

#: What Celery's worker says of the time further off than this isn't believed.
_CLOCKS = dt.timedelta(days=366)

#: Celery's states of a call that has ended.
_ENDS = {
    "SUCCESS": State.SUCCESS,
    "FAILURE": State.FAILURE,
    "REVOKED": State.REVOKED,
    "REJECTED": State.FAILURE,
    "IGNORED": State.REVOKED,
}
_COUNTS = {State.SUCCESS: SUCCEEDED, State.FAILURE: FAILED, State.REVOKED: REVOKED}


def is_end(text: bytes) -> bool:
    """Whether Celery's JSON says that a call has ended."""
    try:
        return serialization.loads(text)["status"] in _ENDS
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def outcome_of(row: TaskResult, text: bytes) -> Outcome | None:
    """What Celery's JSON says of this call, which has not ended in the ledger. None: nothing that
    the row doesn't say.

    A result that can't be read, stored or sent on ends the call as FAILURE.
    """
    sent = _call_of(row)
    try:
        told = serialization.loads(text)
        said = str(told["status"])
        if said in _ENDS:
            return _ended(row, sent, told, _ENDS[said])
        return _going_on(row, sent, told, said)
    except Exception as error:  # noqa: BLE001  whatever is wrong with it, the call ends
        return _unusable(row, sent, error)


def _unusable(row: TaskResult, sent: Message, error: Exception) -> Outcome:
    why = JobsError(f"What Celery's worker says of its end can't be used: {error}")
    why.__cause__ = error
    run = Run(WORKER, clock.now().timestamp())
    record = failure(sent, bytes(row.message), run, why)
    return _done(row, sent, record, _whatever_follows(sent, run, why, State.FAILURE), FAILED)


def _whatever_follows(sent: Message, run: Run, why: Exception, state: State) -> Following:
    """What follows a call that ends in any case."""
    try:
        return after_end(sent, b"", run, why, state)
    except Exception:
        log.exception("what follows task %s[%s] isn't told of its end", sent.task, sent.id)
        return NOTHING


def revoked(row: TaskResult) -> Outcome:
    """The end of a call that was revoked, and of which Celery's workers say nothing."""
    sent, run = _call_of(row), Run(WORKER, clock.now().timestamp())
    why = TaskRevoked("revoked; no worker of Celery's has said what became of it")
    record = failure(sent, bytes(row.message), run, why, State.REVOKED)
    record = record._replace(started_at=row.started_at, attempts=max(record.attempts, row.attempts))
    following = _whatever_follows(sent, run, why, State.REVOKED)
    return _done(row, sent, record, following, REVOKED)


def _call_of(row: TaskResult) -> Message:
    try:
        sent = message.decode(bytes(row.message), row.queue, trusted=True)
    except MessageError:  # it isn't kept, or can't be read: nothing follows it, as far as we know
        sent = Message(task=row.task, id=row.id, queue=row.queue)
        sent.group, sent.group_index = row.group_id, row.group_index
        sent.root_id, sent.parent_id, sent.label = row.root_id, row.parent_id, row.label
    sent.ledger = True
    task = tasks.get(sent.task)
    sent.sensitive = task.sensitive if task else message.hidden_by_sender(sent)
    return sent


def _ended(row: TaskResult, sent: Message, told: Mapping[str, Any], state: State) -> Outcome:
    run = Run(str(told.get("worker") or WORKER), clock.now().timestamp())
    if state == State.SUCCESS:
        record = of_success(sent, tasks.get(sent.task), run, told.get("result"))
        following = after_success(sent, told.get("result")) if sent.embed else NOTHING
    else:
        why, about = _error(row, told, state)
        record = failure(sent, bytes(row.message), run, why, state)._replace(**about)
        following = after_end(sent, b"", run, why, state)
    if record is not None:
        record = _as_told(record, row, told)
    children = told.get("children")
    children = children if isinstance(children, list) else ()
    return _done(row, sent, record, following, _COUNTS[state], children)


def _done(
    row: TaskResult,
    sent: Message,
    record: Record | None,
    following: Following,
    counts: str,
    children: Any = (),
) -> Outcome:
    return Done(
        row.queue,
        0,
        held=False,
        lock=lock_of(sent, tasks.get(sent.task)),
        record=record and ledger.bounded(record),
        following=following,
        ended=sent.id,
        counts=counts,
        call=sent,
        children=children,
    )


def _going_on(row: TaskResult, sent: Message, told: Mapping[str, Any], said: str) -> Outcome | None:
    """Of a call that runs, or waits for its next attempt."""
    if said in ("PENDING", "RECEIVED"):
        return None
    result = told.get("result")
    if said == State.RETRY:
        why, about = _error(row, told, State.FAILURE)
        if (row.state, row.error) == (State.RETRY, about["error"]):
            return None
        run = Run(str(told.get("worker") or WORKER), clock.now().timestamp())
        record = failure(sent, bytes(row.message), run, why, State.RETRY)._replace(**about)
    else:  # STARTED, or a state of the task's own
        if row.state == State.STARTED:
            return None
        named = result.get("hostname") if isinstance(result, Mapping) else None
        run = Run(str(named or told.get("worker") or WORKER), clock.now().timestamp())
        record = failure(sent, bytes(row.message), run, JobsError(), State.STARTED)
        record = record._replace(result=None, error_type="", error="", traceback="")
    record = _as_told(record, row, told)._replace(finished_at=None)
    if said != State.RETRY:
        record = record._replace(started_at=row.started_at or clock.now())
    return Done(row.queue, 0, held=False, record=ledger.bounded(record), call=sent)


def _as_told(record: Record, row: TaskResult, told: Mapping[str, Any]) -> Record:
    """The record with the times and the number of attempts that Celery's worker tells."""
    retries = told.get("retries")
    attempts = retries + 1 if isinstance(retries, int) else 1  # `ledger.bounded` sees to the rest
    now = finished = clock.now()
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):  # it is told at once
        said = dt.datetime.fromisoformat(told["date_done"])
        said = said.astimezone(dt.UTC) if said.tzinfo else said.replace(tzinfo=dt.UTC)
        if abs(now - said) < _CLOCKS:
            finished = said
    return record._replace(
        started_at=row.started_at,
        finished_at=finished,
        attempts=max(record.attempts, row.attempts, attempts),
    )


def _error(
    row: TaskResult, told: Mapping[str, Any], state: State
) -> tuple[BaseException, dict[str, Any]]:
    """The exception with which an attempt has ended, and the columns that tell it."""
    stored = told.get("result")
    if not isinstance(stored, dict) or "exc_type" not in stored:
        stored = {"exc_type": "Exception", "exc_message": [stored], "exc_module": "builtins"}
    given = stored.get("exc_message")
    args = given if isinstance(given, list) else [given]
    text = shortened(str(args[0]) if len(args) == 1 else repr(tuple(args)) if args else "")
    kind = f"{stored.get('exc_module') or 'builtins'}.{stored['exc_type']}"
    about = {
        "result": serialization.dumps(stored),
        "error_type": kind,
        "error": text,
        "traceback": shortened(str(told.get("traceback") or "")),
    }
    if state == State.REVOKED:
        return TaskRevoked(text), about
    return rebuild(TaskResult(id=row.id, state=State.FAILURE, **about)), about
