"""Pages on which one task is paused or resumed, on all queues. Each says first what it will do."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from jobs import control, registry
from jobs.admin.asking import LONG, Asking, reason
from jobs.admin.survey import PauseRow
from jobs.exceptions import UnknownTask


class TaskVerbs(Asking):
    """The part of the queues' admin that changes what is done with one task."""

    def pause_task_view(self, request: HttpRequest) -> HttpResponse:
        """``?task=``: which one is chosen when the page comes up."""

        def pause() -> str:
            task = request.POST.get("task", "")
            if task not in registry.tasks:
                raise UnknownTask(_("There is no task “%(task)s”.") % {"task": task})
            control.pause_task(task, by=request.user.get_username(), why=reason(request))
            return _("Task “%(task)s” is paused.") % {"task": task}

        context = {
            "title": _("Pause a task"),
            "tasks": sorted(registry.tasks),
            "chosen": request.GET.get("task", ""),
            "longest": LONG,
        }
        return self._ask_or_do(request, "pause_task", lambda: context, pause)

    def resume_task_view(self, request: HttpRequest, task: str) -> HttpResponse:
        def resume() -> str:
            if control.resume_task(task):
                return _("Task “%(task)s” is resumed.") % {"task": task}
            return _("Task “%(task)s” was not paused.") % {"task": task}

        def ask() -> dict[str, Any]:
            pause = control.paused_tasks().get(task)
            if pause is None and task not in registry.tasks:
                raise Http404(f"Task {task!r} is not known, and not paused.")
            return {
                "title": _("Resume task “%(task)s”") % {"task": task},
                "task": task,
                "paused": PauseRow(task, pause) if pause else None,
            }

        return self._ask_or_do(request, "resume_task", ask, resume)
