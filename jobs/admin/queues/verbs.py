"""What an operator does to queues and tasks (pause, resume, purge) and to dead letters.

A verb of queues has a template with its question, and a link in ``live.html``. One of tasks has an
address of its own in `QueuesAdmin.get_urls`, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from django.http import Http404, HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from jobs import broker, conf, control, message, registry
from jobs.admin.queues.snapshot import PauseRow
from jobs.admin.verbs import Question, verb, why
from jobs.control import Pause
from jobs.exceptions import MessageError, UnknownTask


def is_declared(queue: str) -> bool:
    return conf.get().knows(queue)


def _who_and_why(request: HttpRequest) -> dict[str, str]:
    return {"by": request.user.get_username(), "why": why(request)}


def _pause_of(name: str, paused: Mapping[str, Pause]) -> PauseRow | None:
    return PauseRow(name, paused[name]) if name in paused else None


# ------------------------------------------------------------------------------ queues


@verb(
    permission="pause_queues",
    label=gettext_lazy("Pause…"),
    fits=is_declared,
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
    fits=is_declared,
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


# ------------------------------------------------------------------------------ dead letters


class Letter(NamedTuple):
    """Where a dead letter is."""

    queue: str
    key: str

    def call(self) -> str:
        """The id of its call; its key if it can't be read. Empty: there is no such letter."""
        found = broker.get().dead_letter_at(*self) if KEY.fullmatch(self.key) else None
        if found is None:
            return ""
        try:
            return message.decode(found.raw, self.queue, trusted=True).id
        except MessageError:
            return self.key


#: The form of a dead letter's key. No letter has another key, which only an address written by hand
#: contains; Redis would answer it with an error.
KEY = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")

_GONE = ngettext_lazy("%(n)d was not there any more.", "%(n)d were not there any more.", "n")


@verb(
    permission="requeue_deadletters",
    label=gettext_lazy("Put back on the queue"),
    done=ngettext_lazy(
        "%(n)d message is back on the queue.", "%(n)d messages are back on the queue.", "n"
    ),
    gone=_GONE,
)
def requeue(letter: Letter, request: HttpRequest) -> str:
    call = letter.call()
    return call if call and control.requeue(*letter) else ""


_LOST = Question(
    text=ngettext_lazy(
        "%(n)s message of queue “%(queue)s” will be deleted for good. It can’t be run or looked at "
        "any more.",
        "%(n)s messages of queue “%(queue)s” will be deleted for good. They can’t be run or looked "
        "at any more.",
        "n",
    ),
    yes=gettext_lazy("Yes, discard"),
    why=True,
)


@verb(
    permission="discard_deadletters",
    label=gettext_lazy("Discard…"),
    question=_LOST,
    destroys=True,
    done=ngettext_lazy("%(n)d message discarded.", "%(n)d messages discarded.", "n"),
    gone=_GONE,
)
def discard(letter: Letter, request: HttpRequest) -> str:
    call = letter.call()
    return call if call and control.discard(*letter) else ""


requeue_all = replace(
    requeue,
    name="requeue_all",
    label=gettext_lazy("Put all back…"),
    question=Question(
        text=ngettext_lazy(
            "%(n)s message goes back on queue “%(queue)s”. If it still can’t be run, it becomes a "
            "dead letter again.",
            "%(n)s messages go back on queue “%(queue)s”. Those that still can’t be run become "
            "dead letters again.",
            "n",
        ),
        yes=gettext_lazy("Yes, put all back"),
        why=True,
    ),
)
discard_all = replace(
    discard,
    name="discard_all",
    label=gettext_lazy("Discard all…"),
    question=replace(_LOST, yes=gettext_lazy("Yes, discard all")),
)

QUEUE_VERBS = (pause, resume, purge)
LETTER_VERBS = (requeue, discard)
ALL_LETTERS_VERBS = (requeue_all, discard_all)
