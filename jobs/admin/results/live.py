"""What runs now, laid over the rows: a worker writes nothing to the ledger when a call starts."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.admin.verbs import TROUBLE
from jobs.control import inspect
from jobs.models import TaskResult
from jobs.states import TERMINAL, State


def overlay(rows: Sequence[TaskResult]) -> None:
    """Give rows whose calls run now the state, worker, attempt and start that are true of them.

    They are not to be saved. While the broker is away, they stay what the ledger says.
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
