"""Every registered task: what it is, how its calls do, and a form to run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from jobs import registry
from jobs.admin.pages import PageAdmin
from jobs.admin.queues.verbs import pause_task
from jobs.admin.tasks.form import RunForm
from jobs.admin.tasks.listing import last_failure, listed
from jobs.admin.tasks.verbs import Sending, rate, run
from jobs.admin.verbs import FAILURES
from jobs.message import new_id
from jobs.models import Tasks

#: Tasks on one page.
_PAGE = 100

#: Most characters of the name that is searched for.
_LONGEST_SEARCH = 255


@admin.register(Tasks)
class TasksAdmin(PageAdmin):
    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, Callable[..., HttpResponse], str]] = [
            ("", self.changelist_view, "changelist"),
            ("task/<path:name>/", self.task_view, "task"),
            ("run/<path:name>/", self.run_view, "run"),
            ("rate/<path:name>/", self.rate_view, "rate"),
        ]
        return [
            path(route, self.admin_site.admin_view(never_cache(view)), name=f"jobs_tasks_{name}")
            for route, view, name in pages
        ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        acts = self.may(request, run) or self.may(request, rate)
        return super().has_view_permission(request, obj) or acts

    # ------------------------------------------------------------------ pages

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """All tasks by name; ``?q=`` searches in the names, ``?after=`` is the next page."""
        self.check_may_view(request)
        search = request.GET.get("q", "").strip()[:_LONGEST_SEARCH]
        after = request.GET.get("after", "")
        names = [name for name in sorted(registry.tasks) if search.lower() in name.lower()]
        below = [name for name in names if name > after]
        context = {
            "title": _("Tasks"),
            "search": search,
            "count": len(names),
            "after": below[_PAGE - 1] if len(below) > _PAGE else "",
            "paged": bool(after),
            **listed(request, below[:_PAGE]),
            **(extra_context or {}),
        }
        return self.page(request, "admin/jobs/tasks/list.html", context)

    def task_view(self, request: HttpRequest, name: str) -> TemplateResponse:
        """One task, whole."""
        self.check_may_view(request)
        task = _find(name)
        found = listed(request, [name])
        context = {
            "title": name,
            "problem": found["problem"],
            "metrics": found["metrics"],
            "row": found["rows"][0]._replace(failure=last_failure(request, name)),
            "may_run": self.may(request, run),
            "may_rate": self.may(request, rate),
            "may_pause": self.may(request, pause_task),
            "sensitive": sorted(one for one in task.sensitive if not one.isdecimal()),
        }
        return self.page(request, "admin/jobs/tasks/task.html", context)

    # ------------------------------------------------------------------ acts

    def run_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """The form for one call, and what is sent with it."""
        if not self.may(request, run):
            raise PermissionDenied
        task = _find(name)
        form = RunForm(task, request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            sending = Sending(task, form.asked(), new_id())
            try:
                said = run.act(sending, request)
            except (TypeError, ValueError, *FAILURES) as error:
                form.add_error(None, str(error))
            else:
                self.log_act(request, run, name, _named(name), said)
                text = _("Sent as {}.")
                messages.success(request, format_html(text, self._link(sending)))
                return HttpResponseRedirect(self._url_of(name))
        context = {
            "title": _("Run task “%(task)s”") % {"task": name},
            "task_name": name,
            "form": form,
            "back": self._url_of(name),
        }
        return self.page(request, "admin/jobs/tasks/run.html", context)

    def rate_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Sets or resets the rate with POST; the form is on the task's page."""
        if not self.may(request, rate):
            raise PermissionDenied
        _find(name)
        if request.method == "POST":
            try:
                said = rate.act(name, request)
            except (TypeError, ValueError, *FAILURES) as error:
                messages.error(request, str(error))
            else:
                messages.success(request, said)
                self.log_act(request, rate, name, _named(name), said)
        return HttpResponseRedirect(self._url_of(name))

    def _link(self, sending: Sending) -> str:
        """The id of the call, as a link to its page if there is one for calls without a result."""
        queue = sending.asked.options.get("queue")
        try:
            place = queue or sending.task.address.queues[0]
            url = reverse(
                "admin:jobs_queues_call",
                args=[place, sending.id],
                current_app=self.admin_site.name,
            )
        except (NoReverseMatch, ValueError, AttributeError):
            return sending.id
        return format_html('<a href="{}">{}</a>', url, sending.id)

    def _url_of(self, name: str) -> str:
        return reverse("admin:jobs_tasks_task", args=[name], current_app=self.admin_site.name)


def _named(name: str) -> str:
    return _("task “%(task)s”") % {"task": name}


def _find(name: str) -> Any:
    if name not in registry.tasks:
        raise Http404(f"There is no task {name!r}.")
    return registry.tasks[name]
