"""The actions of the list of schedules, and the buttons of a schedule's page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache

from jobs.admin.schedules.verbs import DUPLICATE, VERBS, Verb
from jobs.exceptions import SendError
from jobs.models import Schedule

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Schedule]
else:
    _ModelAdmin = admin.ModelAdmin

#: Most schedules acted on at once, and most that a question names.
_MOST, _NAMED = 1000, 10


def _action_of(verb: Verb) -> Callable[..., HttpResponse | None]:
    @admin.action(permissions=[verb.permission], description=verb.label)
    def action(
        owner: ScheduleActions, request: HttpRequest, queryset: QuerySet[Schedule]
    ) -> HttpResponse | None:
        return owner.act_on_chosen(request, verb, queryset)

    action.__name__ = verb.name
    return action


class ScheduleActions(_ModelAdmin):
    """The part of the schedules' admin that does something."""

    actions = tuple(_action_of(verb) for verb in VERBS)

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{verb.name}/",
                self.admin_site.admin_view(never_cache(partial(self._view, verb=verb))),
                name=f"jobs_schedule_{verb.name}",
            )
            for verb in VERBS
        ]
        return [*own, *super().get_urls()]

    def has_run_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.run_schedule")

    def _may(self, request: HttpRequest, verb: Verb) -> bool:
        return request.user.has_perm(f"jobs.{verb.permission}_schedule")

    def act_on_chosen(
        self, request: HttpRequest, verb: Verb, queryset: QuerySet[Schedule]
    ) -> HttpResponse | None:
        chosen = list(queryset[:_MOST])
        if len(chosen) == _MOST and queryset.count() > _MOST:
            said = _("There are more: %(n)d are done at once. Do it again for the others.")
            messages.warning(request, said % {"n": _MOST})
        sent = [("action", verb.name), *((ACTION_CHECKBOX_NAME, s.pk) for s in chosen)]
        return self._act(request, verb, chosen, sent, request.get_full_path())

    # ------------------------------------------------------------------ of one schedule's page

    def _view(self, request: HttpRequest, object_id: str, verb: Verb) -> HttpResponse:
        schedule = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, schedule) or not self._may(request, verb):
            raise PermissionDenied
        if schedule is None:
            messages.warning(request, _("This schedule is not there any more."))
            return HttpResponseRedirect(self.url("changelist"))
        answer = None
        if request.method == "POST":
            answer = self._act(request, verb, [schedule], [], self.url("change", schedule))
        # With GET, somebody had to sign in again on the way here.
        return answer or HttpResponseRedirect(self.url("change", schedule))

    def buttons(self, request: HttpRequest, schedule: Schedule) -> list[tuple[Verb, str, str]]:
        """What this person can do to it: (verb, address, method)."""
        found = []
        for verb in VERBS:
            if not self._may(request, verb) or not verb.fits(schedule):
                continue
            if verb is DUPLICATE:
                found.append((verb, f"{self.url('add')}?copy={quote(schedule.pk)}", "get"))
            else:
                found.append((verb, self.url(verb.name, schedule), "post"))
        return found

    # ------------------------------------------------------------------ of both

    def _act(
        self,
        request: HttpRequest,
        verb: Verb,
        chosen: Sequence[Schedule],
        sent: Sequence[tuple[str, Any]],
        back: str,
    ) -> HttpResponse | None:
        """Do it, or ask; ``sent``: what the answer has to bring again."""
        fitting = [schedule for schedule in chosen if verb.fits(schedule)]
        if verb.asks and fitting and "confirmed" not in request.POST:
            return self._ask(request, verb, fitting, sent, back)
        done = sum(self._act_on(request, verb, schedule) for schedule in fitting)
        if done:
            said = ngettext("%(verb)s: %(n)d schedule.", "%(verb)s: %(n)d schedules.", done)
            label = str(verb.label).rstrip("…")
            messages.success(request, said % {"verb": label, "n": done})
        if left := len(chosen) - len(fitting):
            said = ngettext(
                "%(n)d is left as it is: there was nothing to do.",
                "%(n)d are left as they are: there was nothing to do.",
                left,
            )
            messages.warning(request, said % {"n": left})
        return None

    def _act_on(self, request: HttpRequest, verb: Verb, schedule: Schedule) -> bool:
        try:
            logged = verb.act(schedule)
        except (SendError, ValidationError) as error:
            why = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            said = _("“%(name)s” is left as it is: %(why)s")
            messages.error(request, said % {"name": schedule.name, "why": why})
            return False
        self.log_change(request, schedule, logged)
        return True

    def _ask(
        self,
        request: HttpRequest,
        verb: Verb,
        chosen: Sequence[Schedule],
        sent: Sequence[tuple[str, Any]],
        back: str,
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Are you sure?"),
            "label": str(verb.label).rstrip("…"),
            "schedules": chosen[:_NAMED],
            "unnamed": max(len(chosen) - _NAMED, 0),
            "count": len(chosen),
            "sent": sent,
            "back": back,
        }
        return TemplateResponse(request, "admin/jobs/schedule/confirm.html", context)

    def url(self, name: str, schedule: Schedule | None = None) -> str:
        args = [quote(schedule.pk)] if schedule else []
        return reverse(f"admin:jobs_schedule_{name}", args=args, current_app=self.admin_site.name)
