"""The columns of the list of schedules."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import QuerySet, Value
from django.db.models.functions import Concat, Replace
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jobs import ledger, registry
from jobs.admin import words
from jobs.admin.schedules import moments, rules, runs
from jobs.models import Schedule
from jobs.states import State
from jobs.timing import clock

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Schedule]
else:
    _ModelAdmin = admin.ModelAdmin

#: Beat sends within a second what is due: what waits longer has no beat.
_OVERDUE = dt.timedelta(seconds=30)

_NEVER = "–"


class ScheduleList(ChangeList):
    """Each row with what it did lately, in the same few queries for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = list(self.result_list)
        found = runs.recent(rows)
        for row in rows:
            row.recent = found[row.pk]
        self.result_list = rows


class LabelFilter(admin.SimpleListFilter):
    title = gettext_lazy("label")
    parameter_name = "label"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        texts = (
            Schedule.objects.using(ledger.alias())
            .exclude(labels="")
            .order_by()
            .values_list("labels", flat=True)
        )
        found = {word.strip() for text in texts.distinct() for word in text.split(",")} - {""}
        return [(word, word) for word in sorted(found)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> QuerySet[Schedule]:
        asked = self.value()
        if not asked:
            return queryset
        listed = Concat(Value(","), Replace("labels", Value(", "), Value(",")), Value(","))
        return queryset.alias(listed=listed).filter(listed__contains=f",{asked},")


def troubles(schedule: Schedule) -> list[str]:
    """What somebody should look after."""
    said = []
    if schedule.task not in registry.tasks:
        said.append(_("its task is unknown here"))
    if schedule.dropped:
        said.append(_("no longer declared in code"))
    due = schedule.next_run_at
    if schedule.enabled and due is None and _unreadable(schedule):
        said.append(_("its rule can’t be read"))
    if schedule.enabled and due is not None and due < clock.now() - _OVERDUE:
        said.append(_("overdue: is beat running?"))
    return said


def _unreadable(schedule: Schedule) -> bool:
    try:
        schedule.next_runs(clock.now(), 1)
    except ValidationError:
        return True
    return False


class ScheduleColumns(_ModelAdmin):
    """The part of the schedules' admin that says how they are."""

    @admin.display(description=gettext_lazy("name"), ordering="name")
    def name_and_troubles(self, schedule: Schedule) -> SafeString:
        labels = [word.strip() for word in schedule.labels.split(",") if word.strip()]
        return format_html(
            '{}<span class="jobs-why">{}</span>{}{}',
            schedule.name,
            schedule.task,
            format_html_join(" ", '<span class="jobs-label">{}</span>', ((w,) for w in labels)),
            format_html_join(
                "", '<span class="jobs-trouble">{}</span>', ((t,) for t in troubles(schedule))
            ),
        )

    @admin.display(description=gettext_lazy("rule"))
    def rule(self, schedule: Schedule) -> SafeString:
        foreign = schedule.timezone != timezone.get_current_timezone_name()
        return _lines(rules.in_words(schedule), [schedule.timezone] if foreign else [])

    @admin.display(description=gettext_lazy("next run"), ordering="next_run_at")
    def next_run(self, schedule: Schedule) -> SafeString | str:
        due = schedule.next_run_at
        if not schedule.enabled or due is None:
            return _NEVER
        now = clock.now()
        lines = [moments.local(due, schedule.timezone)]
        if schedule.paused_until and schedule.paused_until > now:
            lines.append(_("paused until then"))
        if schedule.queued_for:
            lines.append(_("one waits for the last run to end"))
        return _lines(words.away(due, now), lines)

    @admin.display(description=gettext_lazy("last runs"), ordering="last_run_at")
    def last_runs(self, schedule: Any) -> SafeString | str:
        at, recent = schedule.last_run_at, schedule.recent
        if at is None and not recent.runs:
            return _NEVER
        badge = self.badge(schedule.last_result, recent.state) if recent.state else ""
        lines = [words.away(at, clock.now())] if at else []
        if recent.drift is not None:
            lines.append(_("drift %(span)s") % {"span": words.duration(recent.drift)})
        lines.append(", ".join(counts(schedule)))
        return _lines(format_html("{}{}", self.strip(schedule), badge), lines)

    def badge(self, result: str, state: str) -> SafeString:
        return format_html(
            '<a href="{}" class="jobs-state jobs-state-{}">{}</a>',
            self.result_url(result),
            state.lower(),
            State(state).label,
        )

    def result_url(self, result: str) -> str:
        return reverse(
            "admin:jobs_taskresult_change", args=[quote(result)], current_app=self.admin_site.name
        )

    def strip(self, schedule: Any) -> SafeString:
        """A box for each of the last runs, the newest at the right."""
        found: list[runs.Run] = schedule.recent.runs
        boxes = format_html_join("", "{}", ((self._box(r, schedule),) for r in reversed(found)))
        label = ngettext("The last run", "The last %(n)d runs", len(found)) % {"n": len(found)}
        if not found:
            return SafeString("")
        return format_html(
            '<span class="jobs-strip" role="group" aria-label="{}">{}</span>', label, boxes
        )

    def _box(self, run: runs.Run, schedule: Schedule) -> SafeString:
        said = runs.title(run, schedule.timezone)
        if not run.result:
            return format_html(
                '<span class="jobs-box jobs-box-{}" role="img" title="{}" aria-label="{}"></span>',
                run.kind,
                said,
                said,
            )
        # Without a stop for the Tab key: a page would have hundreds of them.
        return format_html(
            '<a class="jobs-box jobs-box-{}" href="{}" tabindex="-1" title="{}" aria-label="{}">'
            "</a>",
            run.kind,
            self.result_url(run.result),
            said,
            said,
        )


def counts(schedule: Schedule) -> list[str]:
    said = [ngettext("%(n)d sent", "%(n)d sent", schedule.runs) % {"n": schedule.runs}]
    if skipped := schedule.skipped:
        said.append(ngettext("%(n)d skipped", "%(n)d skipped", skipped) % {"n": skipped})
    return said


def _lines(first: str, others: list[str]) -> SafeString:
    """One line, and smaller ones below it."""
    below = format_html_join("", '<span class="jobs-why">{}</span>', ((line,) for line in others))
    return format_html("{}{}", first, below)
