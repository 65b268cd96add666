"""What an operator asks of a worker. Each act leaves a command for it, and returns where its answer
will be: "queue:id of the command"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy, pgettext_lazy

from jobs import conf, control
from jobs.admin.verbs import Question, Verb
from jobs.control import inspect
from jobs.control.workers import ABOUT_QUEUE, Act


def _asks(act: Act) -> Callable[[Any, HttpRequest], str]:
    def ask(worker: str, request: HttpRequest) -> str:
        queue = request.POST.get("queue", "") if act in ABOUT_QUEUE else ""
        by = request.user.get_username()
        return ":".join(control.workers.command(worker, act, by=by, queue=queue))

    return ask


def _queues_of(worker: str) -> list[str]:
    """What it claims from; empty when it doesn't report any more."""
    return next((one.queues for one in inspect.workers(lost=True) if one.name == worker), [])


def _others(worker: str) -> list[str]:
    """The queues that it may be given as well."""
    left_out = {*_queues_of(worker), *conf.foreign_queues()}
    return [queue for queue in conf.get().queues if queue not in left_out]


def _verb(act: Act, label: Any, done: Any, **options: Any) -> Verb:
    return Verb(
        name=act.value,
        label=label,
        permission="control_workers",
        act=_asks(act),
        done=done,
        **options,
    )


quiet = _verb(
    Act.QUIET,
    gettext_lazy("Quiet"),
    gettext_lazy("Worker “%(worker)s” is asked to claim nothing more."),
)
resume = _verb(
    Act.RESUME,
    pgettext_lazy("worker", "Resume"),
    gettext_lazy("Worker “%(worker)s” is asked to claim again."),
)
drain = _verb(
    Act.DRAIN,
    gettext_lazy("Drain…"),
    gettext_lazy("Worker “%(worker)s” is asked to stop when nothing runs any more."),
    question=Question(
        text=gettext_lazy(
            "Worker “%(worker)s” will claim nothing more, and stop when all that it runs has ended,"
            " however long that takes. It doesn’t start again by itself."
        ),
        yes=gettext_lazy("Yes, drain"),
        why=True,
    ),
)
stop = _verb(
    Act.STOP,
    gettext_lazy("Stop…"),
    gettext_lazy("Worker “%(worker)s” is asked to stop."),
    question=Question(
        text=gettext_lazy(
            "Worker “%(worker)s” will claim nothing more, and stop. What it runs has %(grace)g "
            "seconds to end; what is left then goes back to its queue. It doesn’t start again by "
            "itself."
        ),
        yes=gettext_lazy("Yes, stop"),
        why=True,
    ),
    destroys=True,
)
restart = _verb(
    Act.RESTART,
    gettext_lazy("Restart"),
    gettext_lazy("Worker “%(worker)s” is asked to restart its processes, one by one."),
)
add_queue = _verb(
    Act.ADD_QUEUE,
    gettext_lazy("Add a queue…"),
    gettext_lazy("Worker “%(worker)s” is asked to claim from queue “%(queue)s” as well."),
    question=Question(
        text=gettext_lazy(
            "Worker “%(worker)s” will claim from one more queue, after the others, until it is "
            "restarted."
        ),
        yes=gettext_lazy("Yes, add the queue"),
        why=True,
        template="admin/jobs/workers/queue.html",
        context=lambda worker, request: {"queues": _others(worker)},
    ),
)
cancel_queue = _verb(
    Act.CANCEL_QUEUE,
    gettext_lazy("Cancel a queue…"),
    gettext_lazy("Worker “%(worker)s” is asked to claim from queue “%(queue)s” no longer."),
    question=Question(
        text=gettext_lazy(
            "Worker “%(worker)s” will no longer claim from one of its queues, until it is "
            "restarted. What it runs goes on; what it has not started goes back to the queue."
        ),
        yes=gettext_lazy("Yes, cancel the queue"),
        why=True,
        template="admin/jobs/workers/queue.html",
        context=lambda worker, request: {"queues": _queues_of(worker)},
    ),
)
stack = _verb(
    Act.STACK,
    gettext_lazy("Show stacks"),
    gettext_lazy("Worker “%(worker)s” is asked what its threads are doing."),
)

VERBS = (quiet, resume, restart, stack, add_queue, cancel_queue, drain, stop)
