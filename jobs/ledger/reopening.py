"""Ended calls that an operator sends again, and what follows them: they wait for a new end."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import F

from jobs import ledger, serialization
from jobs.message import workflow
from jobs.models import TaskAttempt, TaskGroup, TaskResult
from jobs.states import TERMINAL, State
from jobs.timing import clock


def reopen(
    task_id: str, message: bytes | None = None, *, behind: Iterable[workflow.Call] = ()
) -> None:
    """An ended call's row waits for a new outcome, and what is known of former attempts makes room
    for those to come. ``message``: its new one. ``behind``: the rest of its chain.

    What has ended only since this call did, waits for it again: the rest of its chain, and the
    chord that it is a member of, with all that comes then.
    """
    with transaction.atomic(using=ledger.alias()):
        if _reopen(task_id, message):
            _reopen_chord(task_id)
        for call in behind:
            _keep_place(call)


def _reopen(task_id: str, message: bytes | None) -> bool:
    rows = TaskResult.objects.using(ledger.alias())
    changes = {} if message is None else {"message": message}
    reopened = rows.filter(id=task_id, state__in=TERMINAL).update(
        state=State.PENDING,
        result=None,
        error_type="",
        error="",
        traceback="",
        attempts=0,
        eta=None,
        started_at=None,
        finished_at=None,
        published_at=clock.now(),
        **changes,
    )
    if reopened:
        TaskAttempt.objects.using(ledger.alias()).filter(result_id=task_id).delete()
    return bool(reopened)


def _reopen_chord(task_id: str) -> None:
    """Of this member, if it is one: it is to be counted once more."""
    rows = TaskResult.objects.using(ledger.alias())
    group_id = rows.values_list("group_id", flat=True).get(id=task_id)
    if group_id is None:
        return
    groups = TaskGroup.objects.using(ledger.alias()).filter(id=group_id)
    if groups.update(remaining=F("remaining") + 1):
        _keep_place(serialization.loads(groups.values_list("body", flat=True).get()))


def _keep_place(call: workflow.Call) -> None:
    """Those tasks of this call that have ended without having been sent keep their place: they are
    sent when what they follow has succeeded."""
    rows = TaskResult.objects.using(ledger.alias())
    for one in workflow.tasks(call):
        task_id = workflow.options(one).get("task_id") or ""
        # What has run by itself has its message still.
        unsent = rows.filter(id=task_id, message=b"", state__in=(State.FAILURE, State.REVOKED))
        if unsent.exists():
            reopen(task_id)
