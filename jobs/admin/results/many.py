"""Acts on all results that match a selection: a few at once, many by a task of this app."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from jobs import ledger
from jobs.admin.results.verbs import again, revoke
from jobs.admin.verbs import Question, Verb, VerbAdmin, address
from jobs.control import acts, selecting
from jobs.control.selecting import Selection
from jobs.message import new_id
from jobs.models import TaskResult
from jobs.states import TERMINAL
from jobs.tasks import act_on_results, seal_of
from jobs.timing import clock

#: Most results that are acted on while the browser waits.
AT_ONCE = 1000


def _forget(row: TaskResult, request: HttpRequest) -> str:
    return _("Deleted.") if acts.forget([row], {}) else ""


forget = Verb(
    name="forget",
    action="delete_selected",
    label=gettext_lazy("Delete…"),
    permission="delete_taskresult",
    act=_forget,
    fits=lambda row: row.state in TERMINAL,
    question=Question(
        text=ngettext_lazy(
            "%(n)s result will be deleted for good.",
            "%(n)s results will be deleted for good.",
            "n",
        ),
        yes=gettext_lazy("Yes, delete"),
    ),
    destroys=True,
    done=ngettext_lazy("%(n)d result is deleted.", "%(n)d results are deleted.", "n"),
    left_out=ngettext_lazy(
        "%(n)d is left as it is: it has not ended.",
        "%(n)d are left as they are: they have not ended.",
        "n",
    ),
    gone=ngettext_lazy(
        "%(n)d has changed or gone meanwhile.", "%(n)d have changed or gone meanwhile.", "n"
    ),
)

#: Name of an action of the list → its verb, and the name of its act.
ON_ALL: dict[str, tuple[Verb, str]] = {
    "run_again": (again, "retry"),
    "revoke": (revoke, "revoke"),
    "delete_selected": (forget, "forget"),
}


def few(
    request: HttpRequest, selection: Selection, act: str
) -> tuple[list[TaskResult] | None, str]:
    """The rows that the act fits, and how many they are in words; None when they are too many to
    be acted on at once, or can't be found quickly."""
    seen = selecting.seen_by(request, ledger.results())
    rows, cut = selection.bounded(seen, restricted=selecting.is_restricted())
    rows = acts.ACTS[act].among(rows)
    found = list(rows.only(*_READ)[: AT_ONCE + 1])
    if not cut and len(found) <= AT_ONCE:
        return found, number_format(len(found), force_grouping=True)
    if cut:
        return None, _("more than %s") % number_format(len(found), force_grouping=True)
    count = selecting.count(rows)
    number = number_format(count.number, force_grouping=True)
    if count.exact:
        return None, number
    return None, (_("more than %s") if count.at_least else _("about %s")) % number


#: What verbs, questions and the log read of a row.
_READ = ("pk", "state", "eta", "task", "queue", "error_type")


def question(
    owner: VerbAdmin,
    request: HttpRequest,
    verb: Verb,
    count: str,
    sent: Sequence[tuple[str, str]],
    back: str,
) -> HttpResponse:
    """The page that asks before a task acts on all that match, ``count`` of them. ``sent``: the
    fields that are to come again with the confirmation."""
    about = _("The results that match now: %(n)s.") % {"n": count}
    later = _(
        "A task does it in the background. Its page shows how far it is, and revoking it there "
        "stops it. Results that are sent from now on are left out."
    )
    context = {
        "verb": verb,
        "title": _("%(verb)s: all that match") % {"verb": verb.title},
        "text": f"{about} {later}",
        "back": back,
        "sent": [*sent, ("until", clock.now().isoformat()), ("in_background", "yes")],
    }
    assert verb.question is not None
    return owner.page(request, verb.question.template, context)


def start(
    owner: VerbAdmin, request: HttpRequest, verb: Verb, act: str, selection: Selection
) -> None:
    """Send the task that acts on all that match, write it to the log, and say where it is shown."""
    # The task must not chase what is sent meanwhile.
    pressed = clock.now()
    until = min(selection.until or pressed, pressed)
    data = replace(selection, until=until).as_data()
    options: dict[str, Any] = {}
    if verb.question and verb.question.option and verb.question.option[0] in request.POST:
        options[verb.question.option[0]] = True
    task_id, user = new_id(), str(request.user.pk)
    seal = seal_of(task_id, act, data, user, options)
    # In a transaction, so that its page is there at once.
    with transaction.atomic(using=ledger.alias()):
        act_on_results.apply_async((act, data, user, seal), options, task_id=task_id)
    row = ledger.results().get(pk=task_id)
    said = _("%(verb)s, all that match: %(which)s.") % {"verb": verb.title, "which": selection}
    log(request, row, said, destroys=verb.destroys)
    begun = _("%(verb)s: a task has begun with all that match.") % {"verb": verb.title}
    if url := address(owner.admin_site.name, "taskresult_change", quote(row.pk)):
        link = '{} <a href="{}">{}</a>'
        begun = format_html(link, begun, url, _("How far it is"))
    messages.success(request, begun)


def log(request: HttpRequest, row: TaskResult | None, said: str, *, destroys: bool = False) -> None:
    """Write to the admin's log what was done to many results."""
    assert request.user.is_authenticated  # or it had no permission
    LogEntry.objects.create(
        user=request.user,
        content_type=ContentType.objects.get_for_model(TaskResult),
        object_id=row.pk if row else None,
        object_repr=str(row or _("results"))[:200],
        action_flag=DELETION if destroys else CHANGE,
        change_message=said.replace("\0", ""),
    )
