"""Pages on which one task is paused or resumed, on all queues. Each says first what it will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from jobs import control, registry
from jobs.admin.queue_verbs import LONG
from jobs.admin.survey import TROUBLE, PauseRow


class TaskVerbs:
    """The part of the queues' admin that changes what is done with one task."""

    if TYPE_CHECKING:
        admin_site: Any

        def may_manage(self, request: HttpRequest) -> bool: ...

        def _page(
            self, request: HttpRequest, name: str, context: dict[str, Any]
        ) -> HttpResponse: ...

    def pause_task_view(self, request: HttpRequest) -> HttpResponse:
        """``?task=``: which one is chosen when the page comes up."""
        self._check_may_manage(request)
        if request.method != "POST":
            context = {
                "title": _("Pause a task"),
                "tasks": sorted(registry.tasks),
                "chosen": request.GET.get("task", ""),
                "longest": LONG,
            }
            return self._page(request, "pause_task", context)
        task = request.POST.get("task", "")
        if task not in registry.tasks:
            messages.error(request, _("There is no task “%(task)s”.") % {"task": task})
            return self._to_overview()
        why = request.POST.get("why", "").strip()[:LONG]
        try:
            control.pause_task(task, by=request.user.get_username(), why=why)
            messages.success(request, _("Task “%(task)s” is paused.") % {"task": task})
        except TROUBLE as error:
            messages.error(request, str(error))
        return self._to_overview()

    def resume_task_view(self, request: HttpRequest, task: str) -> HttpResponse:
        self._check_may_manage(request)
        try:
            if request.method != "POST":
                return self._ask_to_resume(request, task)
            if control.resume_task(task):
                said = _("Task “%(task)s” is resumed.")
            else:
                said = _("Task “%(task)s” was not paused.")
            messages.success(request, said % {"task": task})
        except TROUBLE as error:
            messages.error(request, str(error))
        return self._to_overview()

    def _ask_to_resume(self, request: HttpRequest, task: str) -> HttpResponse:
        pause = control.paused_tasks().get(task)
        if pause is None and task not in registry.tasks:
            raise Http404(f"Task {task!r} is not known, and not paused.")
        context = {
            "title": _("Resume task “%(task)s”") % {"task": task},
            "task": task,
            "paused": PauseRow(task, pause) if pause else None,
        }
        return self._page(request, "resume_task", context)

    def _check_may_manage(self, request: HttpRequest) -> None:
        if not self.may_manage(request):
            raise PermissionDenied

    def _to_overview(self) -> HttpResponseRedirect:
        return HttpResponseRedirect(
            reverse("admin:jobs_queues_changelist", current_app=self.admin_site.name)
        )
