"""What an operator does to results: run them again, revoke them.

Each is an action of the list and a button on a result's page, for those with its permission. What
forgets or ends something is asked for once more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache

from jobs import (
    conf,
    control,
    registry,
)
from jobs.admin import words
from jobs.admin.survey import TROUBLE
from jobs.exceptions import MessageError, SendError
from jobs.models import TaskResult
from jobs.states import State
from jobs.timing import clock

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[TaskResult]
else:
    _ModelAdmin = admin.ModelAdmin

#: Most results acted on at once, and most that the question names.
_MOST, _NAMED = 1000, 10

#: For how long a revocation is remembered beyond the time for which the call waits.
_REMEMBER = dt.timedelta(days=1)


class Verb(NamedTuple):
    """Something that can be done to results."""

    #: The name of its action, and the end of its address.
    name: str
    #: "<permission>_taskresult".
    permission: str
    #: Whether it can be done to this result.
    fits: Callable[[TaskResult], bool]
    #: Whether it forgets or ends something of this result.
    asks: Callable[[TaskResult], bool]
    #: Does it; False when there was nothing to do it to.
    act: Callable[..., bool]
    #: For the log of the admin.
    logged: str | Promise


def _may_run_again(row: TaskResult) -> bool:
    if row.error_type in words.DEAD:
        return False  # its message is among the dead letters, and is put back from there
    return row.state in (State.FAILURE, State.REVOKED, State.RETRY)


def _run_again(row: TaskResult) -> bool:
    verb = control.retry_now if row.state == State.RETRY else control.retry
    return verb(row.pk)


def _is_open(row: TaskResult) -> bool:
    return row.state in (State.PENDING, State.STARTED, State.RETRY)


def _revoke(row: TaskResult, *, terminate: bool = False) -> bool:
    now = clock.now()
    remember = _REMEMBER + max((row.eta or now) - now, dt.timedelta(0))
    control.revoke(row.pk, terminate=terminate, remember=remember.total_seconds())
    if row.state == State.RETRY:
        # So that a worker ends it now rather than when it is due.
        control.retry_now(row.pk)
    return True


AGAIN = Verb(
    name="again",
    permission="retry",
    fits=_may_run_again,
    asks=lambda row: row.state != State.RETRY,
    act=_run_again,
    logged=gettext_lazy("Run again."),
)
REVOKE = Verb(
    name="revoke",
    permission="revoke",
    fits=_is_open,
    asks=lambda row: True,
    act=_revoke,
    logged=gettext_lazy("Revoked."),
)


class ResultActions(_ModelAdmin):
    """The part of the results' admin that does something."""

    actions = ("run_again", "revoke")

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{verb.name}/",
                self.admin_site.admin_view(never_cache(partial(self._view, verb=verb))),
                name=f"jobs_taskresult_{verb.name}",
            )
            for verb in (AGAIN, REVOKE)
        ]
        return [*own, *super().get_urls()]

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self._may(request, AGAIN)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return self._may(request, REVOKE)

    def _may(self, request: HttpRequest, verb: Verb) -> bool:
        return request.user.has_perm(f"jobs.{verb.permission}_taskresult")

    # ------------------------------------------------------------------ of the list

    @admin.action(permissions=["retry"], description=gettext_lazy("Run again now"))
    def run_again(
        self, request: HttpRequest, queryset: QuerySet[TaskResult]
    ) -> HttpResponse | None:
        return self._act_on_chosen(request, AGAIN, queryset, "run_again")

    @admin.action(permissions=["revoke"], description=gettext_lazy("Revoke…"))
    def revoke(self, request: HttpRequest, queryset: QuerySet[TaskResult]) -> HttpResponse | None:
        return self._act_on_chosen(request, REVOKE, queryset, "revoke")

    def _act_on_chosen(
        self, request: HttpRequest, verb: Verb, queryset: QuerySet[TaskResult], action: str
    ) -> HttpResponse | None:
        chosen = list(queryset[:_MOST])
        sent = [("action", action)]
        sent += [(ACTION_CHECKBOX_NAME, row.pk) for row in chosen]
        return self._act(request, verb, chosen, sent, request.get_full_path())

    # ------------------------------------------------------------------ of one result's page

    def _view(self, request: HttpRequest, object_id: str, verb: Verb) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, row) or not self._may(request, verb):
            raise PermissionDenied
        if row is None:
            messages.warning(request, _("This result is not there any more."))
            return HttpResponseRedirect(self._url("changelist"))
        answer = None
        if request.method == "POST":
            answer = self._act(request, verb, [row], [], self._url("change", row))
        # With GET, somebody had to sign in again on the way here.
        return answer or HttpResponseRedirect(self._url("change", row))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """With the buttons that this person has for this result."""
        row = kwargs.get("obj")
        if row is not None:
            for verb in (AGAIN, REVOKE):
                if self._may(request, verb) and verb.fits(row):
                    context[f"{verb.name}_url"] = self._url(verb.name, row)
            context["asks"] = AGAIN.asks(row)
            context["dead_url"] = self._dead_letters(request, row)
            context["pause_url"] = self._pause_task(request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    def _pause_task(self, request: HttpRequest, row: TaskResult) -> str:
        """Where all calls of its task can be paused, if this person may do that."""
        if row.task not in registry.tasks or not request.user.has_perm("jobs.manage_queues"):
            return ""
        where = reverse("admin:jobs_queues_pause_task", current_app=self.admin_site.name)
        return f"{where}?{urlencode({'task': row.task})}"

    def _dead_letters(self, request: HttpRequest, row: TaskResult) -> str:
        """Where its message is, if it is given up and this person may look there."""
        may = any(request.user.has_perm(f"jobs.{what}_queues") for what in ("view", "manage"))
        given_up = row.state == State.FAILURE and row.error_type in words.DEAD
        if not (may and given_up and row.queue in conf.get().queues):
            return ""
        return reverse("admin:jobs_queues_dead", args=[row.queue], current_app=self.admin_site.name)

    # ------------------------------------------------------------------ of both

    def _act(
        self,
        request: HttpRequest,
        verb: Verb,
        chosen: Sequence[TaskResult],
        sent: Sequence[tuple[str, str]],
        back: str,
    ) -> HttpResponse | None:
        """Do it, or ask; ``sent``: what the answer has to bring again."""
        rows = [row for row in chosen if verb.fits(row)]
        if rows and any(map(verb.asks, rows)) and "confirmed" not in request.POST:
            return self._ask(request, verb, rows, len(chosen) - len(rows), sent, back)
        options = {"terminate": True} if verb is REVOKE and "terminate" in request.POST else {}
        done = self._each(request, verb, rows, options)
        if done:
            messages.success(request, _done(verb, done))
        if len(rows) < len(chosen):
            messages.warning(request, _left_out(verb, len(chosen) - len(rows)))
        return None

    def _each(
        self,
        request: HttpRequest,
        verb: Verb,
        rows: Sequence[TaskResult],
        options: dict[str, bool],
    ) -> int:
        done = gone = 0
        try:
            for row in rows:
                if verb.act(row, **options):
                    self.log_change(request, row, str(verb.logged))
                    done += 1
                else:
                    gone += 1
        except (*TROUBLE, MessageError, SendError) as error:
            messages.error(request, str(error))
        if gone:
            said = ngettext(
                "%(n)d has gone on meanwhile, or its message is not kept: look again.",
                "%(n)d have gone on meanwhile, or their messages are not kept: look again.",
                gone,
            )
            messages.warning(request, said % {"n": gone})
        return done

    def _ask(
        self,
        request: HttpRequest,
        verb: Verb,
        rows: Sequence[TaskResult],
        left_out: int,
        sent: Sequence[tuple[str, str]],
        back: str,
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Are you sure?"),
            "verb": verb.name,
            "count": len(rows),
            "rows": rows[:_NAMED],
            "unnamed": max(len(rows) - _NAMED, 0),
            "left_out": _left_out(verb, left_out) if left_out else "",
            "sent": sent,
            "back": back,
        }
        return TemplateResponse(request, "admin/jobs/taskresult/confirm.html", context)

    def _url(self, name: str, row: TaskResult | None = None) -> str:
        args = [quote(row.pk)] if row else []
        return reverse(f"admin:jobs_taskresult_{name}", args=args, current_app=self.admin_site.name)


def _done(verb: Verb, count: int) -> str:
    if verb is AGAIN:
        said = ngettext("%(n)d task is run again.", "%(n)d tasks are run again.", count)
    else:
        said = ngettext(
            "%(n)d task is revoked. A worker ends it when its turn comes.",
            "%(n)d tasks are revoked. A worker ends each when its turn comes.",
            count,
        )
    return said % {"n": count}


def _left_out(verb: Verb, count: int) -> str:
    if verb is AGAIN:
        said = ngettext(
            "%(n)d is left as it is: only what failed, was revoked or waits for a retry is run "
            "again, and dead letters are put back from their own page.",
            "%(n)d are left as they are: only what failed, was revoked or waits for a retry is "
            "run again, and dead letters are put back from their own page.",
            count,
        )
    else:
        said = ngettext(
            "%(n)d is left as it is: it has ended.",
            "%(n)d are left as they are: they have ended.",
            count,
        )
    return said % {"n": count}
