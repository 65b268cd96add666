"""What an operator asks of a worker. Each act leaves a command for it, and returns where its answer
will be: "queue:id of the command"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy, pgettext_lazy

from jobs import control
from jobs.admin.verbs import Question, Verb
from jobs.control.workers import Act


def _asks(act: Act) -> Callable[[Any, HttpRequest], str]:
    def ask(worker: str, request: HttpRequest) -> str:
        return ":".join(control.workers.command(worker, act, by=request.user.get_username()))

    return ask


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
stack = _verb(
    Act.STACK,
    gettext_lazy("Show stacks"),
    gettext_lazy("Worker “%(worker)s” is asked what its threads are doing."),
)

VERBS = (quiet, resume, restart, stack, drain, stop)
