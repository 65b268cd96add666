"""One delivery to one outcome, in small steps.

The outcome is decided here, once; neither the broker nor, but for ``atomic`` tasks, the ledger is
touched.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction

from jobs import ledger, message, signals
from jobs.api.options import (
    check_asked,
    due,
    no_attempt_left,
)
from jobs.exceptions import (
    Ignore,
    Interrupted,
    JobsError,
    Reject,
    Replaced,
    Retry,
    SoftTimeLimitExceeded,
    TaskFailed,
    TaskRevoked,
    TransactionLeftOpen,
    WrongArguments,
    WrongResults,
)
from jobs.ledger.outcomes import Record
from jobs.ledger.refusals import sqlstate
from jobs.message.call import end
from jobs.running.request import (
    Ended,
    current,
    request_of,
    said,
)
from jobs.states import State
from jobs.worker.claim import prepare
from jobs.worker.record import joining, rows
from jobs.worker.record.following import (
    after_end,
    after_replacing,
    after_success,
)
from jobs.worker.record.outcome import (
    NOTHING,
    Delivery,
    Kind,
    Outcome,
)
from jobs.worker.record.rows import Run
from jobs.worker.run import database, isolation
from jobs.worker.run.time_limits import Limits, Timer

log = logging.getLogger("jobs.worker")

#: Seconds until a task whose transaction could not be committed is run again.
_COMMIT_AGAIN = 1.0


def run(delivery: Delivery, worker: str, limits: Limits) -> Outcome:
    """Call a synchronous task, in a context of its own."""
    try:
        outcome = contextvars.copy_context().run(_run, delivery, worker, limits)
        if outcome.failed or signals.task_succeeded.receivers:
            isolation.after_task(delivery.message)  # what receivers have left
        return outcome
    except BaseException as error:  # noqa: BLE001  every call ends
        return ended_by(delivery, worker, error)


def _run(delivery: Delivery, worker: str, limits: Limits) -> Outcome:
    sent, task = delivery.message, delivery.task
    attempt = Run(worker, time.time())
    current.set((sent, worker))
    try:
        if signals.task_started.receivers:
            signals.announce(signals.task_started, task, message=sent, worker=worker)
            isolation.after_task(sent)  # what receivers have left
        soft = limits.soft(sent, task)
        if task.atomic:
            return _run_atomic(delivery, attempt, limits.timer, soft)
        if soft is None:
            result = task(*sent.args, **sent.kwargs)
        else:
            with limits.timer.limit(soft):
                result = task(*sent.args, **sent.kwargs)
    except BaseException as error:  # noqa: BLE001  sys.exit() in a task is the task's failure
        isolation.after_task(sent)
        return _raised(delivery, attempt, error)
    if left_open := isolation.after_task(sent):
        return _raised(delivery, attempt, left_open)
    return _returned(delivery, attempt, result)


async def run_async(delivery: Delivery, worker: str, limits: Limits) -> Outcome:
    """Await an ``async def`` task."""
    try:
        return await _run_async(delivery, worker, limits)
    except BaseException as error:  # noqa: BLE001  every call ends
        return ended_by(delivery, worker, error)


async def _run_async(delivery: Delivery, worker: str, limits: Limits) -> Outcome:
    sent, task = delivery.message, delivery.task
    attempt = Run(worker, time.time())
    # Its asyncio task has a context of its own.
    current.set((sent, worker))
    told: list[signals.Announcement] = []
    signals.later.set(told)
    try:
        if signals.task_started.receivers:
            signals.announce(signals.task_started, task, message=sent, worker=worker)
            await signals.announce_all(told)
        soft = limits.soft(sent, task)
        if soft is None:
            result = await task(*sent.args, **sent.kwargs)
        else:
            result = await _within(soft, task(*sent.args, **sent.kwargs))
    except BaseException as error:  # noqa: BLE001  as above
        outcome = _raised(delivery, attempt, error)
    else:
        outcome = _returned(delivery, attempt, result)
    if told:
        await signals.announce_all(told)
    isolation.after_task(sent)
    database.close_unread(sent)
    return outcome


async def _within(seconds: float, call: Any) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if limit.expired():
            raise SoftTimeLimitExceeded(f"It ran longer than {seconds:g} s.") from error
        raise  # the task's own


class _EndedBefore(Exception):
    """Another delivery of the call has recorded its end."""


def _run_atomic(delivery: Delivery, attempt: Run, timer: Timer, soft: float | None) -> Outcome:
    """The task's effects and its result in one transaction: both or neither, and once."""
    sent, task = delivery.message, delivery.task
    returned = False
    try:
        with transaction.atomic(using=ledger.alias()):
            connection = connections[ledger.alias()]
            depth = len(connection.atomic_blocks)
            with timer.limit(soft):
                result = task(*sent.args, **sent.kwargs)
            if isolation.end_fork:
                isolation.end_fork(False)  # before anything is recorded or committed
            if len(connection.atomic_blocks) != depth or connection.closed_in_transaction:
                # What it did could not be committed with its result.
                raise TransactionLeftOpen(
                    f"Task {task.name!r}[{sent.id}] left another transaction open in its own, or "
                    "closed its connection: nothing of it has stayed."
                )
            returned = True
            if said and isinstance(asked := said.get(sent.id), Retry):
                raise asked
            rows.check_result(result, sent, task)
            row = rows.of_success(sent, task, attempt, result)
            assert row is not None, "an atomic task always has a row"
            if not (ledger.record_ends([row]) if sent.embed else ledger.record([row])):
                raise _EndedBefore
            told: list[str] = []
            if sent.embed:
                after = after_success(sent, result)
                joining.send([after])
                told = joining.join(after.members, {sent.id})
    except _EndedBefore:
        return prepare.already_ended(delivery)
    except (InterfaceError, OperationalError) as error:
        if not returned:
            raise  # the task's own affair
        # Should the commit have succeeded and only its answer be lost, the ledger will say so.
        return _put_back(delivery, attempt, error)
    _announce_success(delivery, attempt, result)
    return Outcome(Kind.DONE, delivery.queue, delivery.number, ended=sent.id, told=told)


# ---------------------------------------------------------------------------- the outcome


def _returned(delivery: Delivery, attempt: Run, result: Any) -> Outcome:
    sent = delivery.message
    if said and isinstance(asked := said.pop(sent.id, None), Retry):
        return _raised(delivery, attempt, asked)
    try:
        if type(result) not in rows.PLAIN:
            rows.check_result(result, sent, delivery.task)
        row = rows.of_success(sent, delivery.task, attempt, result)
        following = after_success(sent, result) if sent.embed else NOTHING
    except Exception as error:  # noqa: BLE001  whatever is wrong with it, the call ends
        return _failed(delivery, attempt, error)
    _announce_success(delivery, attempt, result)
    outcome = _done(delivery, row)
    outcome.following = following
    return outcome


def decided(delivery: Delivery, attempt: Run, result: Any) -> Outcome:
    """The outcome of a call that was run with others: what it returned or, when that is an
    exception, raised."""
    if isinstance(result, BaseException):
        return _raised(delivery, attempt, result)
    return _returned(delivery, attempt, result)


def _raised(delivery: Delivery, attempt: Run, error: BaseException) -> Outcome:
    try:
        told = said.pop(delivery.message.id, None) if said else None
        if isinstance(told, Retry):
            if told is not error:
                told.__cause__ = error
            error = told
        elif isinstance(told, Ended):
            if isinstance(error, Ignore):
                return _said_itself(delivery, attempt, told)
        elif told is not None and told is error:
            return _failed(delivery, attempt, error)
        return _decided(delivery, attempt, error)
    except Exception as trouble:  # noqa: BLE001  it is the call's end
        # What couldn't be done about the task's own error is told with it.
        if trouble is not error and trouble.__cause__ is None:
            trouble.__cause__ = error
        return _failed(delivery, attempt, trouble)


def _decided(delivery: Delivery, attempt: Run, error: BaseException) -> Outcome:
    """Raises whatever keeps it from being decided as the task or its options ask."""
    sent, task = delivery.message, delivery.task
    if isinstance(error, Retry):
        return _asked_again(delivery, attempt, error)
    if isinstance(error, Interrupted):
        back = Outcome(Kind.BACK, delivery.queue, delivery.number)
        back.raw, back.priority = delivery.raw, sent.priority
        return back
    if isinstance(error, Ignore):
        why = "The task raised Ignore, so nothing else was recorded"
        if error.args != Ignore().args:
            why += f": {rows.text_of(error)}"
        return prepare.end(delivery, attempt, TaskRevoked(why))
    if isinstance(error, Replaced):
        return _replaced(delivery, attempt, error)
    if isinstance(error, Reject):
        return _rejected(delivery, attempt, error)
    if isinstance(error, TypeError) and (wrong := _wrong_arguments(delivery)):
        return prepare.end(delivery, attempt, wrong)
    delay = task.options.delay(error, sent.retries)
    if delay is not None:
        return _again(delivery, attempt, error, time.time() + delay)
    return _failed(delivery, attempt, error)


def _said_itself(delivery: Delivery, attempt: Run, told: Ended) -> Outcome:
    """The end that the task gave to `Task.update_state` before it raised `Ignore`."""
    if told.state == State.SUCCESS:
        return _returned(delivery, attempt, told.meta)
    if told.state == State.REVOKED:
        return prepare.end(delivery, attempt, TaskRevoked(rows.text_of(told.meta)))
    return _failed(delivery, attempt, TaskFailed(rows.text_of(told.meta)))


def _asked_again(delivery: Delivery, attempt: Run, asked: Retry) -> Outcome:
    """Raises `TypeError` or `ValueError` for what can't be asked for, as a task may that raises
    `Retry` itself."""
    retries, policy = delivery.message.retries, delivery.task.options
    check_asked(
        exc=asked.exc,
        countdown=asked.countdown,
        eta=asked.eta,
        max_retries=asked.max_retries,
        args=asked.next_args,
        kwargs=asked.next_kwargs,
        expires=asked.next_expires,
    )
    if policy.exhausted(retries, asked.max_retries):
        last = asked.exc
        if last is None:
            last = no_attempt_left(delivery.task.name, delivery.message.id, retries)
            last.__cause__ = asked.__cause__
        return _failed(delivery, attempt, last)
    now = time.time()
    at = due(now, asked.countdown, asked.eta)
    if at is None:
        at = now + policy.pause(retries)
    causes = (asked.exc, asked.__cause__, asked)
    cause = next(cause for cause in causes if cause is not None)
    return _again(delivery, attempt, cause, at, asked)


def _again(
    delivery: Delivery,
    attempt: Run,
    error: BaseException,
    due: float,
    asked: Retry | None = None,
) -> Outcome:
    """Another attempt at ``due`` (Unix seconds)."""
    sent, task = delivery.message, delivery.task
    following = message.next_attempt(
        sent,
        eta=dt.datetime.fromtimestamp(due, dt.UTC),
        args=asked.next_args if asked else None,
        kwargs=asked.next_kwargs if asked else None,
    )
    if asked is not None and asked.next_expires is not None:
        following.expires = end(asked.next_expires)
    raw = message.encode(following)
    row, over = rows.of_retry(sent, task, raw, due, attempt, error)
    signals.announce(
        signals.task_retried,
        task,
        message=sent,
        exception=error,
        countdown=max(0.0, due - time.time()),
        worker=attempt.worker,
    )
    return Outcome(
        Kind.LATER,
        delivery.queue,
        delivery.number,
        record=row,
        attempt=over,
        raw=raw,
        priority=sent.priority,
        due=due,
        failed=True,
    )


def _rejected(delivery: Delivery, attempt: Run, error: Reject) -> Outcome:
    if not error.requeue:
        return prepare.end(delivery, attempt, error)
    return Outcome(
        Kind.LATER,
        delivery.queue,
        delivery.number,
        raw=message.mark_redelivered(delivery.raw, crashed=False)[0],
        priority=delivery.message.priority,
        due=time.time(),
    )


def _replaced(delivery: Delivery, attempt: Run, error: Replaced) -> Outcome:
    following = after_replacing(delivery.message, error.call)
    return Outcome(Kind.DONE, delivery.queue, delivery.number, following=following)


def _put_back(delivery: Delivery, attempt: Run, error: Exception) -> Outcome:
    """To be run again as if it had not been: nothing of it has stayed. Where the database is there
    all the same, that may be the task's own doing: then it counts as a crash, and only so many are
    allowed."""
    sent, task = delivery.message, delivery.task
    own = _may_be_its_own(error)
    if own and sent.crashes >= prepare.most_crashes(task):
        times = sent.crashes + 1
        why = TransactionLeftOpen(
            f"Task {task.name!r}[{sent.id}] could not be committed, {times} "
            f"{'time' if times == 1 else 'times'} in a row, while the database was there. Does it "
            f"close or break its connection? {error}"
        )
        why.__cause__ = error
        return _failed(delivery, attempt, why)
    log.warning(
        "task %s[%s] could not be committed and is run again: %s", task.name, sent.id, error
    )
    return Outcome(
        Kind.LATER,
        delivery.queue,
        delivery.number,
        raw=message.mark_redelivered(delivery.raw, crashed=own)[0],
        priority=sent.priority,
        due=time.time() + _COMMIT_AGAIN,
        failed=True,
    )


def _may_be_its_own(error: Exception) -> bool:
    """Whether this error of a commit can come of the task: the connection is gone, and the database
    isn't. A lock or a conflict, which SQLSTATE or SQLite tells, is the fault of others."""
    connection = connections[ledger.alias()]
    if connection.vendor == "sqlite" or sqlstate(error):
        return False
    connection.close()
    try:
        ledger.ended([""])
    except DatabaseError:
        return False
    return True


def _failed(delivery: Delivery, attempt: Run, error: BaseException) -> Outcome:
    sent, task = delivery.message, delivery.task
    row = rows.of_failure(sent, task, delivery.raw, attempt, error)
    signals.announce(
        signals.task_failed,
        task,
        message=sent,
        exception=error,
        runtime=time.time() - attempt.started,
        worker=attempt.worker,
    )
    outcome = _done(delivery, row, failed=True)
    if sent.embed:
        outcome.following = after_end(sent, delivery.raw, attempt, error)
    return outcome


def ended_by(delivery: Delivery, worker: str, error: BaseException) -> Outcome:
    """The last door: FAILURE with what kept the outcome from being decided. Whatever it was, the
    call ends, and no message ends the process, which would claim it again, and again end."""
    sent = delivery.message
    name = delivery.task.name
    signals.log_error(log, "task %s[%s] ends by an error here", name, sent.id, error=error)
    attempt = Run(worker, time.time())
    try:
        row = rows.of_failure(sent, delivery.task, delivery.raw, attempt, error)
    except BaseException:  # noqa: BLE001  the first error says more
        strange = JobsError(f"An error that can't be described: {type(error).__name__}")
        row = rows.of_failure(sent, delivery.task, delivery.raw, attempt, strange)
    outcome = _done(delivery, row, failed=True)
    if sent.embed:
        try:
            outcome.following = after_end(sent, delivery.raw, attempt, error)
        except Exception as another:  # noqa: BLE001  the call itself has its end
            text = "what follows task %s[%s] is lost"
            signals.log_error(log, text, name, sent.id, error=another)
    return outcome


def _wrong_arguments(delivery: Delivery) -> WrongArguments | None:
    """Asked only after the call has failed, so that calls which don't fail pay nothing."""
    try:
        delivery.task.check_arguments(delivery.message.args, delivery.message.kwargs)
    except TypeError as mismatch:
        return WrongArguments(str(mismatch))
    return None


def _done(delivery: Delivery, row: Record | None, *, failed: bool = False) -> Outcome:
    ended = delivery.message.id if row else ""
    return Outcome(
        Kind.DONE, delivery.queue, delivery.number, record=row, ended=ended, failed=failed
    )


def _announce_success(delivery: Delivery, attempt: Run, result: Any) -> None:
    if not signals.task_succeeded.receivers:
        return  # the usual case, at every task
    signals.announce(
        signals.task_succeeded,
        delivery.task,
        message=delivery.message,
        result=result,
        runtime=time.time() - attempt.started,
        worker=attempt.worker,
    )


def run_batch(deliveries: Sequence[Delivery], worker: str, limits: Limits) -> list[Outcome]:
    """Call the task with the requests of all, in a context of its own; the outcomes are in their
    order."""
    outcomes = contextvars.copy_context().run(_run_batch, deliveries, worker, limits)
    isolation.after_task(deliveries[0].message)  # what receivers have left
    return outcomes


def _run_batch(deliveries: Sequence[Delivery], worker: str, limits: Limits) -> list[Outcome]:
    attempt, task = Run(worker, time.time()), deliveries[0].task
    results: Sequence[Any]
    try:
        for delivery in deliveries:
            signals.announce(signals.task_started, task, message=delivery.message, worker=worker)
        isolation.after_task(deliveries[0].message)  # what receivers have left
        soft = [limits.soft(delivery.message, task) for delivery in deliveries]
        with limits.timer.limit(shortest(soft)):
            returned = task([request_of(delivery.message, worker) for delivery in deliveries])
        results = _each(returned, deliveries)
    except BaseException as error:  # noqa: BLE001  sys.exit() in a task is the task's failure
        results = [error] * len(deliveries)
    if left_open := isolation.after_task(deliveries[0].message):
        # Results that are exceptions stay what they are.
        results = [one if isinstance(one, BaseException) else left_open for one in results]
    decided = zip(deliveries, results, strict=True)
    return [_outcome(delivery, attempt, result) for delivery, result in decided]


def shortest(limits: Sequence[float | None]) -> float | None:
    """Of the time limits of several calls that run as one."""
    return min((limit for limit in limits if limit is not None), default=None)


def _each(returned: Any, deliveries: Sequence[Delivery]) -> Sequence[Any]:
    """What became of each, in the order of the calls; raises `WrongResults`."""
    task, count = deliveries[0].task, len(deliveries)
    if returned is None:
        return [None] * count
    if isinstance(returned, Mapping):
        ids = [delivery.message.id for delivery in deliveries]
        strange = [key for key in returned if key not in ids]
        if strange:
            raise WrongResults(
                f"Batch task {task.name!r} returned a result for {strange[0]!r}, which is not the "
                f"id of one of its {count} calls."
            )
        return [returned.get(task_id) for task_id in ids]
    if not isinstance(returned, list | tuple):
        raise WrongResults(
            f"Batch task {task.name!r} returned a {type(returned).__name__}: return a list with a "
            "result for each call, a dict of id → result, or None."
        )
    results = list(returned)  # what is left to do with them can't raise any more
    if len(results) != count:
        raise WrongResults(
            f"Batch task {task.name!r} returned {len(results)} results for {count} calls."
        )
    return results


def _outcome(delivery: Delivery, attempt: Run, result: Any) -> Outcome:
    try:
        return decided(delivery, attempt, result)
    except BaseException as error:  # noqa: BLE001  every call ends
        return ended_by(delivery, attempt.worker, error)
