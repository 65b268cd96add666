"""Many deliveries of one task to an outcome for each, by one call of its function."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jobs import signals
from jobs.exceptions import WrongResults
from jobs.request import request_of
from jobs.worker import (
    executor,
    isolation,
)
from jobs.worker.limits import Limits
from jobs.worker.outcome import Delivery, Outcome
from jobs.worker.record import Run


def run(deliveries: Sequence[Delivery], worker: str, limits: Limits) -> list[Outcome]:
    """Call the task with the requests of all, in a context of its own; the outcomes are in their
    order."""
    outcomes = contextvars.copy_context().run(_run, deliveries, worker, limits)
    isolation.after_task(deliveries[0].message)  # what receivers have left
    return outcomes


def _run(deliveries: Sequence[Delivery], worker: str, limits: Limits) -> list[Outcome]:
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
        return executor.decided(delivery, attempt, result)
    except BaseException as error:  # noqa: BLE001  every call ends
        return executor.ended_by(delivery, attempt.worker, error)
