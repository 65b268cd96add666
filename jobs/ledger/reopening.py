"""Make ended calls wait for a new end: an operator sends them again."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import F

from jobs import ledger, serialization
from jobs.message import workflow
from jobs.models import TaskAttempt
from jobs.states import TERMINAL, State
from jobs.timing import clock


def reopen(
    task_id: str, message: bytes | None = None, *, behind: Iterable[workflow.Call] = ()
) -> None:
    """Make an ended call's row wait for a new outcome, and delete its former attempts.

    ``message``: its new one. ``behind``: the rest of its chain.

    What ended only because this call did waits again as well: the rest of its chain, and the chord
    that it is a member of, with all that comes after that.
    """
    with transaction.atomic(using=ledger.alias()):
        rows = ledger.results().filter(id=task_id)
        reopened = rows.filter(state__in=TERMINAL).update(
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
            **({} if message is None else {"message": message}),
        )
        if reopened:
            TaskAttempt.objects.using(ledger.alias()).filter(result_id=task_id).delete()
            group_id = rows.values_list("group_id", flat=True).get()
            groups = ledger.groups().filter(id=group_id)
            # The member is to be counted once more.
            if group_id is not None and groups.update(remaining=F("remaining") + 1):
                _keep_place(serialization.loads(groups.values_list("body", flat=True).get()))
        for call in behind:
            _keep_place(call)


def _keep_place(call: workflow.Call) -> None:
    """Reopen those tasks of this call that ended without having been sent. Their rows keep a place
    for them: they are sent when what they follow has succeeded."""
    for one in workflow.tasks(call):
        task_id = workflow.options(one).get("task_id") or ""
        # The row of a call that was sent still has its message.
        ended = ledger.results().filter(id=task_id, state__in=(State.FAILURE, State.REVOKED))
        if ended.filter(message=b"").exists():
            reopen(task_id)
