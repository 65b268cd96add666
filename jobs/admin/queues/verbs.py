"""What an operator does to queues and tasks (pause, resume, purge), and to the calls of a queue.

A verb of queues has a template with its question, and a link in ``live.html``. One of tasks has an
address of its own in `QueuesAdmin.get_urls`, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from jobs import broker, conf, control, registry
from jobs.admin.queues import calls
from jobs.admin.queues.calls import Chosen
from jobs.admin.queues.snapshot import PauseRow
from jobs.admin.verbs import Question, Verb, verb, why
from jobs.broker.base import PARKED
from jobs.control import Pause
from jobs.exceptions import UnknownTask
from jobs.timing import clock


def is_declared(queue: str) -> bool:
    return conf.get().knows(queue)


def is_ours(queue: str) -> bool:
    """Whether this program's workers take its calls."""
    return is_declared(queue) and queue not in conf.foreign_queues()


def _who_and_why(request: HttpRequest) -> dict[str, str]:
    return {"by": request.user.get_username(), "why": why(request)}


def _pause_of(name: str, paused: Mapping[str, Pause]) -> PauseRow | None:
    return PauseRow(name, paused[name]) if name in paused else None


# ------------------------------------------------------------------------------ queues


@verb(
    permission="pause_queues",
    label=gettext_lazy("Pause…"),
    fits=is_ours,
    question=Question(
        template="admin/jobs/queues/pause.html",
        context=lambda queue, request: {
            "title": _("Pause queue “%(queue)s”") % {"queue": queue},
            "queue": queue,
        },
    ),
)
def pause(queue: str, request: HttpRequest) -> str:
    control.pause(queue, **_who_and_why(request))
    return _("Queue “%(queue)s” is paused.") % {"queue": queue}


@verb(
    permission="pause_queues",
    label=gettext_lazy("Resume…"),
    fits=is_declared,
    question=Question(
        template="admin/jobs/queues/resume.html",
        context=lambda queue, request: {
            "title": _("Resume queue “%(queue)s”") % {"queue": queue},
            "queue": queue,
            "paused": _pause_of(queue, control.paused()),
            "waiting": broker.get().stats(queue).waiting,
        },
    ),
)
def resume(queue: str, request: HttpRequest) -> str:
    if control.resume(queue):
        return _("Queue “%(queue)s” is resumed.") % {"queue": queue}
    return _("Queue “%(queue)s” was not paused.") % {"queue": queue}


@verb(
    permission="purge_queues",
    label=gettext_lazy("Purge…"),
    fits=is_ours,
    question=Question(
        template="admin/jobs/queues/purge.html",
        context=lambda queue, request: {
            "title": _("Purge queue “%(queue)s”") % {"queue": queue},
            "queue": queue,
            "stats": broker.get().stats(queue),
        },
    ),
    destroys=True,
)
def purge(queue: str, request: HttpRequest) -> str:
    if request.POST.get("name", "").strip() != queue:
        raise ValidationError(
            _("Nothing was deleted: type the queue’s name, “%(queue)s”, to confirm.")
            % {"queue": queue}
        )
    done = control.purge(queue, due="due" in request.POST)
    return ngettext("%(n)d message deleted.", "%(n)d messages deleted.", done) % {"n": done}


# ------------------------------------------------------------------------------ tasks


@verb(
    permission="pause_queues",
    label=gettext_lazy("Pause a task…"),
    question=Question(
        template="admin/jobs/queues/pause_task.html",
        context=lambda task, request: {
            "title": _("Pause a task"),
            "tasks": sorted(registry.tasks),
            "chosen": request.GET.get("task", ""),
        },
    ),
)
def pause_task(task: str, request: HttpRequest) -> str:
    """The task is chosen on the page; ``?task=`` chooses one in advance."""
    if task not in registry.tasks:
        raise UnknownTask(_("There is no task “%(task)s”.") % {"task": task})
    control.pause_task(task, **_who_and_why(request))
    return _("Task “%(task)s” is paused.") % {"task": task}


def _before_resuming(task: str, request: HttpRequest) -> dict[str, Any]:
    paused = _pause_of(task, control.paused_tasks())
    if paused is None and task not in registry.tasks:
        raise Http404(f"Task {task!r} is not known, and not paused.")
    title = _("Resume task “%(task)s”") % {"task": task}
    return {"title": title, "task": task, "paused": paused}


@verb(
    permission="pause_queues",
    label=gettext_lazy("Resume…"),
    question=Question(template="admin/jobs/queues/resume_task.html", context=_before_resuming),
)
def resume_task(task: str, request: HttpRequest) -> str:
    if control.resume_task(task):
        return _("Task “%(task)s” is resumed.") % {"task": task}
    return _("Task “%(task)s” was not paused.") % {"task": task}


# ------------------------------------------------------------------------------ calls

#: For how long a revocation is remembered after the call is due.
_REMEMBER = 86_400.0

_GONE = ngettext_lazy(
    "%(n)d was not there any more: it has moved on.",
    "%(n)d were not there any more: they have moved on.",
    "n",
)


def _waits(call: Chosen) -> bool:
    """Also for one that is gone: the act says so."""
    return call.found is None or not call.found.consumer


def _revoke_call(call: Chosen, *, terminate: bool) -> str:
    if not call.id:
        return ""
    waiting = call.found and call.found.waiting
    ahead = 0.0
    if waiting and waiting.due is not None and waiting.due < PARKED:
        ahead = max(0.0, waiting.due - clock.now().timestamp())
    control.revoke(call.id, terminate=terminate, remember=_REMEMBER + ahead)
    if waiting and waiting.due is not None:
        control.hasten(call.queue, waiting)  # or it would end only when it is due
    return _("Terminated.") if terminate else _("Revoked.")


@verb(
    permission="revoke_taskresult",
    label=gettext_lazy("Revoke…"),
    question=Question(
        text=ngettext_lazy(
            "%(n)s call will be revoked: a worker ends it as REVOKED instead of starting it. If "
            "it runs already, it goes on.",
            "%(n)s calls will be revoked: a worker ends each as REVOKED instead of starting it. "
            "Those that run already go on.",
            "n",
        ),
        yes=gettext_lazy("Yes, revoke"),
        why=True,
    ),
    destroys=True,
    done=ngettext_lazy("%(n)d call is revoked.", "%(n)d calls are revoked.", "n"),
    gone=ngettext_lazy(
        "%(n)d can’t be read, so it can’t be revoked.",
        "%(n)d can’t be read, so they can’t be revoked.",
        "n",
    ),
)
def revoke(call: Chosen, request: HttpRequest) -> str:
    return _revoke_call(call, terminate=False)


@verb(
    permission="revoke_taskresult",
    label=gettext_lazy("Terminate…"),
    question=Question(
        text=ngettext_lazy(
            "%(n)s call will be ended as REVOKED, even while it runs: its worker process is "
            "killed, and whatever else that process was running is run again.",
            "%(n)s calls will be ended as REVOKED, even while they run: their worker processes "
            "are killed, and whatever else those were running is run again.",
            "n",
        ),
        yes=gettext_lazy("Yes, terminate"),
        why=True,
    ),
    destroys=True,
    done=ngettext_lazy("%(n)d call is terminated.", "%(n)d calls are terminated.", "n"),
    gone=revoke.gone,
)
def terminate(call: Chosen, request: HttpRequest) -> str:
    return _revoke_call(call, terminate=True)


@verb(
    permission="hasten_calls",
    label=gettext_lazy("Run now"),
    fits=lambda call: call.found is None or (call.found.due is not None and not call.found.parked),
    done=ngettext_lazy("%(n)d call is run now.", "%(n)d calls are run now.", "n"),
    left_out=ngettext_lazy(
        "%(n)d is left as it is: it waits for its task to be resumed.",
        "%(n)d are left as they are: they wait for their tasks to be resumed.",
        "n",
    ),
    gone=_GONE,
)
def run_now(call: Chosen, request: HttpRequest) -> str:
    waiting = call.found and call.found.waiting
    return _("Run now.") if waiting and control.hasten(call.queue, waiting) else ""


def may_go_to(queue: str) -> list[str]:
    """Where the messages of a queue can be moved: other queues of this program's workers, open ones
    only from open ones."""
    kind = conf.get().queue(queue).open
    return [
        name
        for name in conf.get().queues
        if name != queue and is_ours(name) and conf.get().queue(name).open == kind
    ]


@verb(
    permission="move_calls",
    label=gettext_lazy("Move…"),
    fits=_waits,
    question=Question(
        text=ngettext_lazy(
            "%(n)s call will be moved from queue “%(queue)s” to another one.",
            "%(n)s calls will be moved from queue “%(queue)s” to another one, in the same order.",
            "n",
        ),
        yes=gettext_lazy("Yes, move"),
        why=True,
        template="admin/jobs/queues/move.html",
    ),
    done=ngettext_lazy("%(n)d call is moved.", "%(n)d calls are moved.", "n"),
    left_out=ngettext_lazy(
        "%(n)d is left as it is: a worker holds it.",
        "%(n)d are left as they are: workers hold them.",
        "n",
    ),
    gone=_GONE,
)
def move(call: Chosen, request: HttpRequest) -> str:
    waiting, to = call.found and call.found.waiting, request.POST.get("to", "")
    if not waiting or not control.move_one(call.queue, to, waiting):
        return ""
    return _("Moved to queue “%(queue)s”.") % {"queue": to}


@verb(
    permission="purge_queues",
    label=gettext_lazy("Delete…"),
    fits=lambda call: _waits(call) and is_ours(call.queue),
    question=Question(
        text=ngettext_lazy(
            "%(n)s message of queue “%(queue)s” will be deleted for good. Its call is never run, "
            "and ends as REVOKED.",
            "%(n)s messages of queue “%(queue)s” will be deleted for good. Their calls are never "
            "run, and end as REVOKED.",
            "n",
        ),
        yes=gettext_lazy("Yes, delete"),
        why=True,
    ),
    destroys=True,
    done=ngettext_lazy("%(n)d message deleted.", "%(n)d messages deleted.", "n"),
    left_out=move.left_out,
    gone=_GONE,
)
def delete(call: Chosen, request: HttpRequest) -> str:
    waiting = call.found and call.found.waiting
    return _("Deleted.") if waiting and control.delete(call.queue, waiting) else ""


revoke_all = replace(revoke, name="revoke_all", label=gettext_lazy("Revoke all…"))
terminate_all = replace(terminate, name="terminate_all", label=gettext_lazy("Terminate all…"))
run_all_now = replace(
    run_now,
    name="run_all_now",
    label=gettext_lazy("Run all now…"),
    question=Question(
        text=ngettext_lazy(
            "%(n)s call of queue “%(queue)s” will be run now instead of later.",
            "%(n)s calls of queue “%(queue)s” will be run now instead of later.",
            "n",
        ),
        yes=gettext_lazy("Yes, run all now"),
        why=True,
    ),
)
move_all = replace(move, name="move_all", label=gettext_lazy("Move all…"))
delete_all = replace(delete, name="delete_all", label=gettext_lazy("Delete all…"))

QUEUE_VERBS = (pause, resume, purge)

#: For the chosen calls of each list, and for all of them.
CALL_VERBS: dict[str, tuple[Verb, ...]] = {
    calls.WAITING: (revoke, move, delete),
    calls.RUNNING: (revoke, terminate),
    calls.IN_FLIGHT: (revoke, terminate),
    calls.DUE: (run_now, revoke, move, delete),
}
ALL_CALLS_VERBS: dict[str, tuple[Verb, ...]] = {
    calls.WAITING: (revoke_all, move_all, delete_all),
    calls.RUNNING: (terminate_all,),
    calls.IN_FLIGHT: (revoke_all, terminate_all),
    calls.DUE: (run_all_now, revoke_all, move_all, delete_all),
}
