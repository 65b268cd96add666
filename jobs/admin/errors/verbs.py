"""What an operator does to a group of errors: mark it as known, or not any more.

Running its calls again is the verb of results.
"""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import ledger
from jobs.admin.errors.groups import Group
from jobs.admin.verbs import Question, verb, why
from jobs.models import KnownError
from jobs.timing import clock


@verb(
    label=gettext_lazy("Mark as known…"),
    permission="mark_errors",
    question=Question(
        text=gettext_lazy(
            "The error is folded away at the end of the page, for everybody. Nothing else changes: "
            "its calls fail and are retried as before."
        ),
        yes=gettext_lazy("Yes, mark as known"),
        why=True,
    ),
    done=gettext_lazy("The error is marked as known."),
)
def mark(group: Group, request: HttpRequest) -> str:
    KnownError.objects.using(ledger.alias()).update_or_create(
        task=group.task,
        error_type=group.error_type,
        defaults={
            "marked_by": request.user.get_username(),
            "marked_at": clock.now(),
            "why": why(request),
        },
    )
    return _("Marked as known.")


@verb(
    label=gettext_lazy("Not known any more"),
    permission="mark_errors",
    done=gettext_lazy("The error is not marked any more."),
    gone=gettext_lazy("The error was not marked."),
)
def unmark(group: Group, request: HttpRequest) -> str:
    marks = KnownError.objects.using(ledger.alias())
    gone, _models = marks.filter(task=group.task, error_type=group.error_type).delete()
    return _("Not known any more.") if gone else ""


VERBS = (mark, unmark)
