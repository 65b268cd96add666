"""What an operator does to results: run them again, revoke them."""

from __future__ import annotations

import datetime as dt

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from jobs import control
from jobs.admin import words
from jobs.admin.results import editing
from jobs.admin.verbs import Question, Verb, verb
from jobs.models import TaskResult
from jobs.states import State
from jobs.timing import clock

#: For how long a revocation is remembered after the call is due.
_REMEMBER = dt.timedelta(days=1)


@verb(
    action="run_again",
    label=gettext_lazy("Run again now"),
    button=lambda row: _("Try again now") if row.state == State.RETRY else _("Run again…"),
    permission="retry_taskresult",
    # A dead letter is put back from its own page.
    fits=lambda row: (
        row.state in (State.FAILURE, State.REVOKED, State.RETRY)
        and row.error_type not in words.DEAD
    ),
    question=Question(
        text=ngettext_lazy(
            "%(n)s task will be run again, with all its retries. Its former attempts stay on its "
            "page.",
            "%(n)s tasks will be run again, with all their retries. Their former attempts stay on "
            "their pages.",
            "n",
        ),
        yes=gettext_lazy("Yes, run again"),
        when=lambda row: row.state != State.RETRY,
    ),
    done=ngettext_lazy("%(n)d task is run again.", "%(n)d tasks are run again.", "n"),
    left_out=ngettext_lazy(
        "%(n)d is left as it is: only what failed, was revoked or waits for a retry is run "
        "again, and dead letters are put back from their own page.",
        "%(n)d are left as they are: only what failed, was revoked or waits for a retry is "
        "run again, and dead letters are put back from their own page.",
        "n",
    ),
    gone=ngettext_lazy(
        "%(n)d has changed meanwhile, or its message is not kept: look again.",
        "%(n)d have changed meanwhile, or their messages are not kept: look again.",
        "n",
    ),
)
def again(row: TaskResult, request: HttpRequest) -> str:
    if row.state == State.RETRY:
        done = control.retry_now(row.pk)
    else:
        done = control.retry(row.pk, by=request.user.get_username())
    return _("Run again.") if done else ""


@verb(
    label=gettext_lazy("Revoke…"),
    permission="revoke_taskresult",
    fits=lambda row: row.state in (State.PENDING, State.STARTED, State.RETRY),
    question=Question(
        text=ngettext_lazy(
            "%(n)s task will be revoked: wherever it waits, it will not be started.",
            "%(n)s tasks will be revoked: wherever they wait, they will not be started.",
            "n",
        ),
        yes=gettext_lazy("Yes, revoke"),
        option=(
            "terminate",
            gettext_lazy(
                "End it also if it is running now. Its worker process is killed, and whatever "
                "else that process was running is run again."
            ),
        ),
    ),
    destroys=True,
    done=ngettext_lazy(
        "%(n)d task is revoked. A worker ends it when its turn comes.",
        "%(n)d tasks are revoked. A worker ends each when its turn comes.",
        "n",
    ),
    left_out=ngettext_lazy(
        "%(n)d is left as it is: it has ended.",
        "%(n)d are left as they are: they have ended.",
        "n",
    ),
)
def revoke(row: TaskResult, request: HttpRequest) -> str:
    now = clock.now()
    remember = _REMEMBER + max((row.eta or now) - now, dt.timedelta(0))
    terminate = "terminate" in request.POST
    control.revoke(row.pk, terminate=terminate, remember=remember.total_seconds())
    return _("Revoked.")


#: It has a form of its own: see `jobs.admin.results.admin.ResultAdmin.edit_view`.
edit = Verb(
    name="edit",
    label=gettext_lazy("Run with other arguments…"),
    permission="edit_taskresult",
    fits=editing.fits,
    act=lambda row, request: "",
    done=gettext_lazy("A new call with these arguments is sent."),
    left_out=gettext_lazy(
        "Only what has ended, and whose task is known here, is run with other arguments."
    ),
)

VERBS = (again, revoke)
