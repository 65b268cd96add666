"""What an operator does with a task: send a call of it, and change its rate. Pausing and resuming
are verbs of the queues' page."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import control, registry, serialization
from jobs.admin import words
from jobs.admin.tasks.form import Asked
from jobs.admin.verbs import verb
from jobs.exceptions import UnknownTask

#: Characters of arguments in the admin's log.
_SHOWN = 1000


class Sending(NamedTuple):
    """A call that somebody wants to be sent."""

    task: Any
    asked: Asked
    #: The id that the call is to have.
    id: str


@verb(permission="run_tasks", label=gettext_lazy("Run…"))
def run(sending: Sending, request: HttpRequest) -> str:
    """Sensitive arguments are not in the log."""
    task, (args, kwargs, options), task_id = sending
    # Before it is sent: it can't be taken back.
    shown = task.message(args, kwargs)
    arguments = words.call(
        serialization.dumps(shown.shown_args),
        serialization.dumps(shown.shown_kwargs),
        whole=_SHOWN,
    )
    task.apply_async(args, kwargs, task_id=task_id, **options)
    return _("Sent as %(id)s, with (%(arguments)s).") % {"id": task_id, "arguments": arguments}


@verb(permission="rate_tasks", label=gettext_lazy("Change the rate"))
def rate(task: str, request: HttpRequest) -> str:
    """The rate is in the form; empty: back to the one in the code. Raises `ValueError`."""
    if task not in registry.tasks:
        raise UnknownTask(_("There is no task “%(task)s”.") % {"task": task})
    wanted, burst = request.POST.get("rate", "").strip(), request.POST.get("burst", "").strip()
    if not wanted:
        control.rate_limit(task, None)
        return _("Task “%(task)s” has the rate of its code.") % {"task": task}
    if burst and not (burst.isascii() and burst.isdecimal() and len(burst) < 10):
        raise ValueError(_("The burst must be a whole number."))
    by = request.user.get_username()
    control.rate_limit(task, wanted, burst=int(burst) if burst else None, by=by)
    return _("Task “%(task)s” has the rate %(rate)s.") % {"task": task, "rate": wanted}
