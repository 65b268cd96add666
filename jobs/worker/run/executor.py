"""One delivery to one outcome: call the task, and decide what became of the call.

`run`, `run_async` and `run_batch` call it, within its time limits; `_returned` and `_raised` decide
once. Neither touches the broker; only atomic tasks touch the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import datetime as dt
import functools
import inspect
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Protocol

from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.dispatch import Signal
from msgspec.structs import replace

from jobs import broker, conf, ledger, message, signals
from jobs.api.options import (
    check_again,
    check_asked,
    due,
    no_attempt_left,
)
from jobs.api.task import Task
from jobs.control.metrics import FAILED, RETRIED, REVOKED, SUCCEEDED
from jobs.exceptions import (
    BrokerUnavailable,
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
from jobs.ledger import publish
from jobs.ledger.outcomes import Attempt, Record
from jobs.ledger.refusals import is_from_server
from jobs.message import Message
from jobs.message.call import end
from jobs.running.request import (
    Ended,
    current,
    request_of,
    said,
)
from jobs.states import State
from jobs.worker.loops import vital
from jobs.worker.record import celery_results, errbacks, joining
from jobs.worker.record import outcome as rows
from jobs.worker.record.following import (
    after_end,
    after_replacing,
    after_success,
    end_of,
)
from jobs.worker.record.outcome import (
    NOTHING,
    Back,
    Delivery,
    Done,
    Following,
    Later,
    Outcome,
    Run,
    origin,
)
from jobs.worker.run import isolation
from jobs.worker.run.isolation import setitimer

log = logging.getLogger("jobs.worker")

#: Seconds until a task whose transaction could not be committed is run again.
_COMMIT_AGAIN = 1.0


# Each task runs in a context of its own, so that context variables which it sets, such as the
# active language, don't reach the next one.


def run(delivery: Delivery, worker: str, limits: Limits) -> Outcome:
    """Call a synchronous task."""
    return contextvars.copy_context().run(_run, delivery, worker, limits)


def _run(delivery: Delivery, worker: str, limits: Limits) -> Outcome:
    sent, task = delivery.message, delivery.task
    attempt = Run(worker, time.time())
    current.set((sent, worker))
    if sent.celery:
        message.sent_by[sent.id] = []
    outcome = None
    try:
        try:
            if task.track_started or (limits.track_started and task.track_started is None):
                _track_start(delivery, attempt)
            if signals.task_started.receivers:
                signals.announce(signals.task_started, task, message=sent, worker=worker)
                isolation.after_task(sent)  # what receivers have left
            if task.hooks:
                _before_start(delivery)
            soft = limits.soft(sent, task)
            if task.atomic:
                outcome = _run_atomic(delivery, attempt, limits.timer, soft)
            else:
                args = errbacks.arguments(sent, worker) if sent.errback else sent.args
                if soft is None:
                    # What `Task.__call__` does.
                    result = (task if task.called else task.run)(*args, **sent.kwargs)
                else:
                    with limits.timer.limit(soft):
                        result = task(*args, **sent.kwargs)
        except BaseException as error:  # noqa: BLE001  sys.exit() in a task is the task's failure
            isolation.after_task(sent)
            outcome = _raised(delivery, attempt, error)
        else:
            left_open = isolation.after_task(sent)
            if outcome is None and left_open:
                outcome = _raised(delivery, attempt, left_open)
            elif outcome is None:
                outcome = _returned(delivery, attempt, result)
        if outcome.failed or task.hooks or signals.task_succeeded.receivers:
            isolation.after_task(sent)  # what receivers have left
    except BaseException as error:  # noqa: BLE001  every call ends
        outcome = ended_by(delivery, worker, error)
    if sent.celery:
        outcome = _with_children(outcome, message.sent_by.pop(sent.id))
    if signals.task_finished.receivers:
        _finished(delivery, attempt, outcome)
    return outcome


async def run_async(delivery: Delivery, worker: str, limits: Limits) -> Outcome:
    """Await an ``async def`` task; the asyncio task that does this has a context of its own."""
    sent, task = delivery.message, delivery.task
    attempt = Run(worker, time.time())
    current.set((sent, worker))
    if sent.celery:
        message.sent_by[sent.id] = []
    told: list[Callable[[], None]] = []
    signals.later.set(told)
    try:
        try:
            if task.track_started or (limits.track_started and task.track_started is None):
                await sync_to_async(_track_start)(delivery, attempt)
            if signals.task_started.receivers:
                signals.announce(signals.task_started, task, message=sent, worker=worker)
                await signals.announce_all(told)
            if "before_start" in task.hooks:
                await sync_to_async(_before_start, thread_sensitive=False)(delivery)
            soft = limits.soft(sent, task)
            args = errbacks.arguments(sent, worker) if sent.errback else sent.args
            if soft is None:
                result = await task(*args, **sent.kwargs)
            else:
                result = await _within(soft, task(*args, **sent.kwargs))
        except BaseException as error:  # noqa: BLE001  as in `run`
            outcome = _raised(delivery, attempt, error)
        else:
            outcome = _returned(delivery, attempt, result)
        if told:
            await signals.announce_all(told)
        isolation.after_task(sent)
        isolation.close_unread(sent)
    except BaseException as error:  # noqa: BLE001  every call ends
        outcome = ended_by(delivery, worker, error)
    if sent.celery:
        outcome = _with_children(outcome, message.sent_by.pop(sent.id))
    if signals.task_finished.receivers:
        try:
            _finished(delivery, attempt, outcome)
            await signals.announce_all(told)
        except BaseException as error:  # noqa: BLE001  the call has its outcome
            signals.log_error(log, _AT_THE_END, delivery.task.name, sent.id, error=error)
    return outcome


def _with_children(outcome: Outcome, made: Sequence[tuple[str, str | None]]) -> Outcome:
    """The outcome of a call that has sent calls with these ids and groups, which are its children
    for Celery's clients; see `celery_results`."""
    found: list[Any] = []
    groups: dict[str, list[Any]] = {}
    for task_id, group_id in made:
        child = [[task_id, None], None]
        if group_id is None:
            found.append(child)
        elif group_id in groups:
            groups[group_id].append(child)
        else:
            groups[group_id] = [child]
            found.append([[group_id, None], groups[group_id]])
    return replace(outcome, children=[*found, *outcome.children]) if found else outcome


def _track_start(delivery: Delivery, attempt: Run) -> None:
    """Write into the ledger that the call runs. If the database doesn't take that, it runs all the
    same: its end is what counts."""
    row = rows.of_start(delivery.message, delivery.task, delivery.raw, attempt)
    if row is None:
        return
    try:
        ledger.record_start(row)
    except DatabaseError as error:
        log.warning("that task %s has started can't be recorded: %s", row.id, error)
        connections[ledger.alias()].close()
    asked = conf.get().celery_results
    if asked == "all" or (asked == "clients" and delivery.message.celery):
        try:
            kept = conf.get().celery_result_expires
            told = celery_results.started(row.id, row.worker)
            broker.get().store_celery_results([told], kept)
        except BrokerUnavailable as error:
            log.warning(
                "Celery's clients can't be told that task %s has started: %s", row.id, error
            )


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
    """Commit the task's effects and its result in one transaction: both or neither, and once."""
    sent, task = delivery.message, delivery.task
    returned = False
    after = NOTHING
    told: list[str] = []
    try:
        with transaction.atomic(using=ledger.alias()):
            connection = connections[ledger.alias()]
            depth = len(connection.atomic_blocks)
            args = errbacks.arguments(sent, attempt.worker) if sent.errback else sent.args
            with timer.limit(soft):
                result = task(*args, **sent.kwargs)
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
            if not (ledger.record_ends([row]) if sent.embed else ledger.record([row])):
                raise _EndedBefore
            if sent.embed:
                after = after_success(sent, result)
                joining.send([after])
                told = joining.join(after.members, {sent.id})
    except _EndedBefore:
        return rows.already_ended(delivery)
    except (InterfaceError, OperationalError) as error:
        if not returned:
            raise  # the task's own affair
        # Should the commit have succeeded and only its answer be lost, the ledger will say so.
        return _put_back(delivery, attempt, error)
    if signals.task_succeeded.receivers:
        runtime = time.time() - attempt.started
        _announce(signals.task_succeeded, delivery, attempt, result=result, runtime=runtime)
    if task.hooks:
        _hooked(delivery, "on_success", result)
    return Done(
        *origin(delivery),
        ended=sent.id,
        told=told,
        counts=SUCCEEDED,
        call=sent,
        began=attempt.started,
        over=time.time(),
        children=after.children,
    )


def _put_back(delivery: Delivery, attempt: Run, error: Exception) -> Outcome:
    """Run a call again, as if it had not run, since its transaction was not committed. If the
    database is there all the same, the task itself may be the cause: then this counts as a crash,
    and only so many are allowed."""
    sent, task = delivery.message, delivery.task
    own = _may_be_its_own(error)
    if own and sent.marks.crashes >= rows.most_crashes(task):
        times = sent.marks.crashes + 1
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
    raw, _ = message.mark_redelivered(delivery.raw, crashed=own)
    return _later(delivery, raw, time.time() + _COMMIT_AGAIN, failed=True)


def _may_be_its_own(error: Exception) -> bool:
    """Whether a task may have caused this error of its commit: the connection is gone, and the
    database isn't. Where the server or SQLite tells of a lock or a conflict, others have."""
    connection = connections[ledger.alias()]
    if connection.vendor == "sqlite" or is_from_server(error):
        return False
    connection.close()
    try:
        ledger.ended([""])
    except DatabaseError:
        return False
    return True


def run_batch(deliveries: Sequence[Delivery], worker: str, limits: Limits) -> list[Outcome]:
    """Call a batch task with the requests of all deliveries; return their outcomes in the same
    order."""
    return contextvars.copy_context().run(_run_batch, deliveries, worker, limits)


def _run_batch(deliveries: Sequence[Delivery], worker: str, limits: Limits) -> list[Outcome]:
    attempt, task = Run(worker, time.time()), deliveries[0].task
    results: Sequence[Any]
    try:
        if task.track_started or (limits.track_started and task.track_started is None):
            for delivery in deliveries:
                _track_start(delivery, attempt)
        for delivery in deliveries:
            signals.announce(signals.task_started, task, message=delivery.message, worker=worker)
        isolation.after_task(deliveries[0].message)  # what receivers have left
        if task.hooks:
            for delivery in deliveries:
                current.set((delivery.message, worker))
                _before_start(delivery)
            current.set(None)
        soft = [limits.soft(delivery.message, task) for delivery in deliveries]
        with limits.timer.limit(shortest(soft)):
            returned = task([request_of(delivery.message, worker) for delivery in deliveries])
        results = _each(returned, deliveries)
    except BaseException as error:  # noqa: BLE001  as in `run`
        results = [error] * len(deliveries)
    if left_open := isolation.after_task(deliveries[0].message):
        # Results that are exceptions stay what they are.
        results = [one if isinstance(one, BaseException) else left_open for one in results]
    outcomes = []
    for delivery, result in zip(deliveries, results, strict=True):
        decide = _raised if isinstance(result, BaseException) else _returned
        # For receivers and the log. The task itself runs as none of its calls.
        current.set((delivery.message, worker))
        try:
            outcomes.append(decide(delivery, attempt, result))
        except BaseException as error:  # noqa: BLE001  every call ends
            outcomes.append(ended_by(delivery, worker, error))
        if signals.task_finished.receivers:
            _finished(delivery, attempt, outcomes[-1])
    current.set(None)
    isolation.after_task(deliveries[0].message)  # what receivers have left
    return outcomes


def shortest(limits: Sequence[float | None]) -> float | None:
    """The time limit of several calls that run as one."""
    return min((limit for limit in limits if limit is not None), default=None)


def _each(returned: Any, deliveries: Sequence[Delivery]) -> Sequence[Any]:
    """The result of each call of a batch, in the order of the calls; raises `WrongResults`."""
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
    results = list(returned)  # a plain list: using it can't raise what a subclass might
    if len(results) != count:
        raise WrongResults(
            f"Batch task {task.name!r} returned {len(results)} results for {count} calls."
        )
    return results


# ---------------------------------------------------------------------------- the outcome


def _returned(delivery: Delivery, attempt: Run, result: Any) -> Outcome:
    sent = delivery.message
    if said and isinstance(asked := said.pop(sent.id, None), Retry):
        return _raised(delivery, attempt, asked)
    try:
        if type(result) not in rows.PLAIN:
            rows.check_result(result, sent, delivery.task)
        row = None
        if rows.is_kept(sent, delivery.task):
            row = rows.of_success(sent, delivery.task, attempt, result)
        following = after_success(sent, result) if sent.embed else NOTHING
    except Exception as error:  # noqa: BLE001  whatever is wrong with it, the call ends
        return _failed(delivery, attempt, error)
    if signals.task_succeeded.receivers:
        runtime = time.time() - attempt.started
        _announce(signals.task_succeeded, delivery, attempt, result=result, runtime=runtime)
    if delivery.task.hooks:
        _hooked(delivery, "on_success", result)
    ended = sent.id if row else ""
    # By position, which takes half as long as by name.
    over = time.time()
    return Done(*origin(delivery), row, following, ended, SUCCEEDED, sent, attempt.started, over)


def _announce(event: Signal, delivery: Delivery, attempt: Run, **about: Any) -> None:
    task, sent = delivery.task, delivery.message
    signals.announce(event, task, message=sent, worker=attempt.worker, **about)


#: What an outcome counts as → the state of `task_finished`.
_STATES = {
    SUCCEEDED: State.SUCCESS,
    FAILED: State.FAILURE,
    RETRIED: State.RETRY,
    REVOKED: State.REVOKED,
}

_AT_THE_END = "task %s[%s] has its outcome, but its receivers could not be told"


def _finished(delivery: Delivery, attempt: Run, outcome: Outcome) -> None:
    """Announce `task_finished`, and tidy up after its receivers."""
    state, runtime = _STATES.get(outcome.counts, ""), time.time() - attempt.started
    try:
        _announce(signals.task_finished, delivery, attempt, state=state, runtime=runtime)
        isolation.after_task(delivery.message)
    except BaseException as error:  # noqa: BLE001  the call has its outcome
        name, task_id = delivery.task.name, delivery.message.id
        signals.log_error(log, _AT_THE_END, name, task_id, error=error)


def _raised(delivery: Delivery, attempt: Run, error: BaseException) -> Outcome:
    try:
        told = said.pop(delivery.message.id, None) if said else None
        if isinstance(told, Retry):
            if told is not error:
                told.__cause__ = error
            error = told
        elif isinstance(told, Ended) and isinstance(error, Ignore):
            # The task gave itself an end by `Task.update_state`.
            if told.state == State.SUCCESS:
                return _returned(delivery, attempt, told.meta)
            text = rows.text_of(told.meta)
            if told.state == State.REVOKED:
                return _ended(delivery, attempt, TaskRevoked(text))
            return _failed(delivery, attempt, TaskFailed(text))
        elif told is not None and told is error:
            return _failed(delivery, attempt, error)
        return _decided(delivery, attempt, error)
    except Exception as trouble:  # noqa: BLE001  it is the call's end
        # Nothing could be done about the task's own error, which is recorded as the cause.
        if trouble is not error and trouble.__cause__ is None:
            trouble.__cause__ = error
        return _failed(delivery, attempt, trouble)


def _decided(delivery: Delivery, attempt: Run, error: BaseException) -> Outcome:
    """The outcome that the task or its options ask for; raises what keeps it from being made."""
    sent, task = delivery.message, delivery.task
    if isinstance(error, Retry):
        return _asked_again(delivery, attempt, error)
    if isinstance(error, Interrupted):
        return Back(*origin(delivery), raw=delivery.raw, priority=sent.priority)
    if isinstance(error, Ignore):
        why = "The task raised Ignore, so nothing else was recorded"
        if error.args != Ignore().args:
            why += f": {rows.text_of(error)}"
        return _ended(delivery, attempt, TaskRevoked(why))
    if isinstance(error, Replaced):
        return Done(*origin(delivery), following=after_replacing(sent, error.call))
    if isinstance(error, Reject):
        if not error.requeue:
            return _ended(delivery, attempt, error)
        raw, _ = message.mark_redelivered(delivery.raw, crashed=False)
        return _later(delivery, raw, time.time())
    if isinstance(error, TypeError):
        # Arguments are checked only now, so that calls which don't fail pay nothing.
        try:
            task.check_arguments(sent.args, sent.kwargs)
        except TypeError as mismatch:
            wrong = WrongArguments(str(mismatch))
            if task.hooks:
                _hooked(delivery, "on_failure", wrong)
            return _ended(delivery, attempt, wrong)
    delay = task.options.delay(error, sent.retries)
    if delay is not None:
        return _again(delivery, attempt, error, time.time() + delay)
    return _failed(delivery, attempt, error)


def _asked_again(delivery: Delivery, attempt: Run, asked: Retry) -> Outcome:
    """Another attempt, as `Task.retry` or the task itself asked for it by raising `Retry`; raises
    `TypeError` or `ValueError` for what can't be asked for."""
    retries, policy = delivery.message.retries, delivery.task.options
    check_asked(
        exc=asked.exc,
        countdown=asked.countdown,
        eta=asked.eta,
        max_retries=asked.max_retries,
        args=asked.next_args,
        kwargs=asked.next_kwargs,
    )
    check_again(delivery.task.name, asked.next_options)
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
    if asked is not None and asked.next_options:
        _give(following, asked.next_options)
    raw = message.encode(following)
    row, over = rows.of_retry(sent, task, raw, due, attempt, error)
    to = None
    if following.queue != sent.queue:
        to = publish.outgoing_of(following)
    countdown = max(0.0, due - time.time())
    _announce(signals.task_retried, delivery, attempt, exception=error, countdown=countdown)
    if task.hooks:
        _hooked(delivery, "on_retry", error)
    later = _later(delivery, raw, due, record=row, attempt=over, failed=True)
    return replace(
        later,
        priority=following.priority,
        to=to,
        counts=RETRIED,
        call=sent,
        began=attempt.started,
        over=time.time(),
    )


def _give(following: Message, options: Mapping[str, Any]) -> None:
    """Give the next attempt other options than those its call was sent with."""
    if (expires := options.get("expires")) is not None:
        following.expires = end(expires)
    if (queue := options.get("queue")) is not None:
        following.queue = queue
    if (priority := options.get("priority")) is not None:
        following.priority = priority
    if (ignored := options.get("ignore_result")) is not None:
        following.ignore_result = ignored
    if headers := options.get("headers"):
        following.own_headers = {**following.headers, **headers}
    hard, soft = following.timelimit
    following.timelimit = (
        options.get("time_limit", hard),
        options.get("soft_time_limit", soft),
    )


def _later(
    delivery: Delivery,
    raw: bytes,
    due: float,
    *,
    record: Record | None = None,
    attempt: Attempt | None = None,
    failed: bool = False,
) -> Outcome:
    """Have this message claimed again at ``due`` (Unix seconds)."""
    return Later(
        *origin(delivery),
        record=record,
        failed=failed,
        raw=raw,
        priority=delivery.message.priority,
        due=due,
        attempt=attempt,
    )


def _failed(delivery: Delivery, attempt: Run, error: BaseException) -> Outcome:
    sent, task = delivery.message, delivery.task
    row = rows.of_failure(sent, task, delivery.raw, attempt, error)
    runtime = time.time() - attempt.started
    _announce(signals.task_failed, delivery, attempt, exception=error, runtime=runtime)
    if task.hooks:
        _hooked(delivery, "on_failure", error)
    return _failure(delivery, attempt, row, after_end(sent, delivery.raw, attempt, error))


def _ended(delivery: Delivery, attempt: Run, why: Exception) -> Outcome:
    """`end_of` a call that has run."""
    return replace(end_of(delivery, attempt, why), began=attempt.started, over=time.time())


def ended_by(delivery: Delivery, worker: str, error: BaseException) -> Outcome:
    """The last resort: FAILURE with the error that kept the outcome from being decided. The call
    ends whatever happens; if its message ended the process, another would claim it and end, too."""
    sent = delivery.message
    name = delivery.task.name
    signals.log_error(log, "task %s[%s] ends by an error here", name, sent.id, error=error)
    attempt = Run(worker, time.time())
    try:
        row = rows.of_failure(sent, delivery.task, delivery.raw, attempt, error)
    except BaseException:  # noqa: BLE001  the first error says more
        strange = JobsError(f"An error that can't be described: {type(error).__name__}")
        row = rows.of_failure(sent, delivery.task, delivery.raw, attempt, strange)
    try:
        following = after_end(sent, delivery.raw, attempt, error)
    except Exception as another:  # noqa: BLE001  the call itself has its end
        following = NOTHING
        text = "what follows task %s[%s] is lost"
        signals.log_error(log, text, name, sent.id, error=another)
    return _failure(delivery, attempt, row, following)


def _failure(delivery: Delivery, attempt: Run, row: Record | None, following: Following) -> Outcome:
    return Done(
        *origin(delivery),
        record=row,
        following=following,
        ended=delivery.message.id if row else "",
        failed=True,
        counts=FAILED,
        call=delivery.message,
        began=attempt.started,
        over=time.time(),
    )


# ---------------------------------------------------------------------------- hooks
#
# They run at the moments of the signals: in the thread or, for an async task, beside the loop that
# ran the task, in the context of its call, outside of an atomic task's transaction, and before the
# outcome is recorded, but for that of an atomic task, which is committed by then.


def _before_start(delivery: Delivery) -> None:
    """Raises what the hook raises: the attempt ends by it."""
    sent, task = delivery.message, delivery.task
    if "before_start" in task.hooks:
        _finish(task.before_start(sent.id, sent.args, sent.kwargs))


def _hooked(delivery: Delivery, name: str, value: Any) -> None:
    """Call the hook of an outcome, and after an end ``after_return``. ``value``: what the task
    returned, or the exception. Of an async task they are called when its outcome is decided."""
    sent, hooks = delivery.message, delivery.task.hooks
    about = sent.id, sent.args, sent.kwargs
    einfo = None if name == "on_success" else signals.ExceptionInfo(value)
    calls: list[tuple[str, tuple[Any, ...]]] = []
    if name in hooks:
        calls.append((name, (value, *about) if einfo is None else (value, *about, einfo)))
    if "after_return" in hooks and name != "on_retry":
        state = State.SUCCESS if einfo is None else State.FAILURE
        calls.append(("after_return", (state.value, value, *about, einfo)))
    later = signals.later.get() if signals.on_loop() else None
    for hook, args in calls:
        if later is None:
            _call_hook(delivery, hook, args)
        else:
            later.append(functools.partial(_call_hook, delivery, hook, args))


def _call_hook(delivery: Delivery, name: str, args: tuple[Any, ...]) -> None:
    """What it raises is logged: the call has its outcome."""
    try:
        _finish(getattr(delivery.task, name)(*args))
    except BaseException as error:  # noqa: BLE001  sys.exit(), too
        about = name, delivery.task.name, delivery.message.id
        signals.log_error(log, "%s of task %s[%s] raised", *about, error=error)


def _finish(answer: Any) -> None:
    """Wait for what a hook that is ``async def`` has returned."""
    if inspect.isawaitable(answer):
        async_to_sync(_awaited)(answer)


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


# ---------------------------------------------------------------------------- time limits
#
# What each can interrupt:
#
# ==============  =============================================  ==================================
# runner          soft limit (an exception inside the task)      hard limit (the process is killed)
# ==============  =============================================  ==================================
# main thread     a signal: anything but C code that neither     anything
#                 returns nor looks at signals
# threads         at the next Python instruction: not a call     anything; the other tasks of the
#                 that blocks in C                               process are run again
# event loop      at the next ``await``                          as with threads
# ==============  =============================================  ==================================


class Timer(Protocol):
    """Raises `SoftTimeLimitExceeded` in the thread that runs a task."""

    def limit(self, seconds: float | None) -> contextlib.AbstractContextManager[None]: ...


class Limits:
    """The limits of one child's tasks, in seconds (None: no limit), and what else is the same for
    all of them."""

    def __init__(self, timer: Timer, *, soft: float | None = None, hard: float | None = None):
        """``soft``, ``hard``: the worker's own, for tasks that have none."""
        self.timer = timer
        #: Whether starts are recorded, of tasks that don't say it themselves.
        self.track_started = conf.get().track_started
        self._soft = soft
        self._hard = hard

    def soft(self, sent: Message, task: Task[..., Any]) -> float | None:
        """Until `SoftTimeLimitExceeded`: the call's, else the task's, else the worker's."""
        return sent.timelimit[1] or task.soft_time_limit or self._soft

    def hard(self, sent: Message, task: Task[..., Any]) -> float | None:
        """Until the process is killed: likewise."""
        return sent.timelimit[0] or task.time_limit or self._hard


class MainThreadTimer:
    """By SIGALRM, which Python handles in the main thread."""

    def __init__(self) -> None:
        self._armed = False

        def ring(signum: int, frame: FrameType | None) -> None:
            if self._armed:
                self._armed = False
                raise SoftTimeLimitExceeded

        signal.signal(signal.SIGALRM, ring)

    @contextlib.contextmanager
    def limit(self, seconds: float | None) -> Iterator[None]:
        if seconds is None:
            yield
            return
        self._armed = True
        setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            # First: a signal that comes from here on belongs to a task that has ended.
            self._armed = False
            setitimer(signal.ITIMER_REAL, 0)


class ThreadTimer:
    """By an exception that CPython raises in another thread at its next instruction.

    One watcher thread serves all threads; it starts with the first limit.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: Thread → when its task has had its time (monotonic). Whoever takes an entry out decides
        #: what becomes of the task.
        self._ends: dict[int, float] = {}
        #: Threads in which the exception is just being raised.
        self._raising: set[int] = set()
        self._watcher: threading.Thread | None = None

    @contextlib.contextmanager
    def limit(self, seconds: float | None) -> Iterator[None]:
        if seconds is None:
            yield
            return
        me = threading.get_ident()
        with self._changed:
            self._ends[me] = time.monotonic() + seconds
            if self._watcher is None:
                self._watcher = threading.Thread(
                    target=vital(self._watch), name="jobs-soft-limits", daemon=True
                )
                self._watcher.start()
            self._changed.notify()
        try:
            yield
        finally:
            # Without the lock: the exception may come at any instruction from here on, and would
            # leave a lock locked that was just being taken.
            if self._ends.pop(me, None) is None:
                while me in self._raising:
                    time.sleep(0)
                # What was raised and has not come yet belongs to a task that has ended. Taken back
                # by None, it would leave CPython 3.11 looking for it at every instruction, for ever
                # at the same one if a profiler, a debugger or coverage is at work.
                with contextlib.suppress(_TakenBack):
                    _raise_in(me, _TakenBack)
                    while True:
                        time.sleep(0)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                for thread, ends in list(self._ends.items()):
                    if ends <= now:
                        self._raising.add(thread)
                        if self._ends.pop(thread, None) is not None:
                            _raise_in(thread, SoftTimeLimitExceeded)
                        self._raising.discard(thread)
                first = min(list(self._ends.values()), default=None)
                # Ended by limit(), and by the first limit.
                self._changed.wait(None if first is None else first - now)


class _TakenBack(BaseException):
    """Raised in place of an exception that is pending in a thread."""


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Raise this in a thread at its next instruction, in place of one that is pending there."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
