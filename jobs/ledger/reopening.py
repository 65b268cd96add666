"""Make ended calls wait for a new end: an operator sends them again."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import F, Max

from jobs import ledger, serialization
from jobs.message import LONGEST, workflow
from jobs.models import TaskAttempt, TaskResult
from jobs.models.results import TaskResultQuerySet
from jobs.states import TERMINAL, State
from jobs.timing import clock


def reopen(task_id: str, *, by: str = "", behind: Iterable[workflow.Call] = ()) -> int | None:
    """Make an ended call's row wait for a new outcome. Returns how many attempts it has had, for
    its message; None: there is no such row, or it has not ended.

    How it ended is kept as an attempt, with ``by``, who runs it again. ``behind``: the rest of its
    chain.

    What ended only because this call did waits again as well: the rest of its chain, and the chord
    that it is a member of, with all that comes after that.
    """
    with transaction.atomic(using=ledger.alias()):
        rows = ledger.results().filter(id=task_id)
        old = rows.filter(state__in=TERMINAL).defer("message", "args", "kwargs", "result")
        row = old.select_for_update().first()
        attempts = None if row is None else _keep_attempt(row, by)
        if row is not None:
            _make_pending(rows, attempts or 0)
            _count_again(row)
        for call in behind:
            _keep_place(call)
    return attempts


def _keep_attempt(row: TaskResult, by: str) -> int:
    """Keep how this call has ended as its last attempt, and return that attempt's number."""
    kept = TaskAttempt.objects.using(ledger.alias())
    last = kept.filter(result_id=row.pk).aggregate(last=Max("number"))["last"] or 0
    now = clock.now()
    # A call that ended while it waited for its next attempt has the number of the former one.
    number = max(row.attempts, last + 1)
    kept.create(
        result_id=row.pk,
        number=number,
        worker=row.worker,
        eta=row.eta,
        # Of a revoked call, a worker has only noted when it found that out.
        started_at=None if row.state == State.REVOKED else row.started_at,
        finished_at=row.finished_at or now,
        error_type=row.error_type,
        error=row.error or ("revoked" if row.state == State.REVOKED else ""),
        traceback=row.traceback,
        reopened_by=by[:LONGEST],
        reopened_at=now,
    )
    return number


def _make_pending(rows: TaskResultQuerySet, attempts: int) -> None:
    rows.update(
        state=State.PENDING,
        result=None,
        error_type="",
        error="",
        traceback="",
        attempts=attempts,
        worker="",
        eta=None,
        started_at=None,
        finished_at=None,
        published_at=clock.now(),
    )


def _count_again(row: TaskResult) -> None:
    """Have the chord of this call, if it is a member of one, wait for it once more."""
    groups = ledger.groups().filter(id=row.group_id)
    if row.group_id is not None and groups.update(remaining=F("remaining") + 1):
        _keep_place(serialization.loads(groups.values_list("body", flat=True).get()))


def _keep_place(call: workflow.Call) -> None:
    """Reopen those tasks of this call that ended without having been sent. Their rows keep a place
    for them: they are sent when what they follow has succeeded."""
    for one in workflow.tasks(call):
        task_id = workflow.options(one).get("task_id") or ""
        # The row of a call that was sent still has its message.
        rows = ledger.results().filter(id=task_id)
        unsent = rows.filter(state__in=(State.FAILURE, State.REVOKED), message=b"")
        if row := unsent.defer("args", "kwargs", "result").first():
            _make_pending(rows, 0)
            _count_again(row)
