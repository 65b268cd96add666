"""What runs now, laid over the rows: a worker writes nothing to the ledger when a call starts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from jobs import conf
from jobs.admin.verbs import TROUBLE
from jobs.control import inspect
from jobs.message import id_time
from jobs.models import TaskResult
from jobs.states import TERMINAL, State


def overlay(rows: Sequence[TaskResult]) -> None:
    """Set the present state, worker, attempt and start on rows of running calls.

    Don't save these rows. While the broker is away, they stay as the ledger has them.
    """
    waiting = {row.pk: row for row in rows if row.state not in TERMINAL}
    if not waiting:
        return
    try:
        running = inspect.running(waiting, {row.queue for row in waiting.values()})
    except TROUBLE:
        return
    for task_id, found in running.items():
        row, attempt = waiting[task_id], found.call.attempt
        # The worker has recorded this attempt, and not told the broker yet.
        over = row.attempts if row.state == State.RETRY else row.attempts - 1
        if attempt <= over:
            continue
        row.state = State.STARTED
        row.worker, row.started_at, row.finished_at = found.consumer, found.since, None
        row.attempts = attempt


def without_row(task_id: str) -> TaskResult | None:
    """A running call that the ledger doesn't know yet: it was sent outside a transaction. The row
    is not to be saved."""
    try:
        found = inspect.running({task_id}, conf.get().queues).get(task_id)
    except TROUBLE:
        return None
    if found is None:
        return None
    call = found.call
    sent = id_time(task_id)
    created = found.since if sent is None else dt.datetime.fromtimestamp(sent, dt.UTC)
    return TaskResult(
        id=task_id,
        task=call.task,
        queue=call.queue,
        state=State.STARTED,
        args=call.args,
        kwargs=call.kwargs,
        label=call.label,
        attempts=call.attempt,
        worker=found.consumer,
        created_at=created,
        published_at=created,
        started_at=found.since,
    )
