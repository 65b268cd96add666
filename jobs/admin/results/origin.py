"""Who sent a call: a schedule, another call, a person in the admin, or a process."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs import ledger, message
from jobs.admin import words
from jobs.admin.verbs import address
from jobs.exceptions import MessageError
from jobs.models import ScheduleRun, TaskResult

#: Beat notes a run in the transaction that sends it.
_NEAR = dt.timedelta(minutes=1)

#: Most acts of people on a page.
SHOWN = 20


def sender(row: TaskResult, site: str, acts: Sequence[LogEntry]) -> SafeString:
    """In words. The call that it follows is shown with its workflow."""
    for act in acts:
        if act.action_flag == ADDITION:
            return format_html("{}: {}", act.user.get_username(), act.get_change_message())
    if run := _run(row):
        url = address(site, "schedule_change", str(run.schedule_id))
        due = _("due %(at)s") % {"at": words.moment(run.due_at, zone=True)}
        name: str = run.schedule.name
        if url:
            name = format_html('<a href="{}">{}</a>', url, name)
        return format_html("{} {}, {}", _("Schedule"), name, due)
    if row.parent_id:
        return SafeString(_("Another call: see the workflow."))
    sent = kept_message(row)
    process = sent.origin if sent else None
    return format_html("{}", _("Process %(name)s") % {"name": process} if process else "")


def _run(row: TaskResult) -> ScheduleRun | None:
    """The due time of a schedule at which the call was sent; by the index on `ScheduleRun.at`."""
    near = (row.created_at - _NEAR, row.created_at + _NEAR)
    runs = ScheduleRun.objects.using(ledger.alias()).filter(at__range=near, result=row.pk)
    return runs.select_related("schedule").first()


def tenant(row: TaskResult) -> str:
    """Whose call it is, as long as its message is kept; empty: nobody's."""
    sent = kept_message(row)
    return sent.fair if sent else ""


def kept_message(row: TaskResult) -> message.Message | None:
    """The message of a call, as long as the ledger keeps it. That of a success it doesn't."""
    if not row.message:
        return None
    try:
        return message.decode(bytes(row.message), row.queue, trusted=True)
    except MessageError:
        return None


def acts_on(row: TaskResult) -> list[LogEntry]:
    """What people have done to the call in the admin, the first act first."""
    kind = ContentType.objects.get_for_model(TaskResult)
    entries = LogEntry.objects.filter(content_type=kind, object_id=row.pk).select_related("user")
    return list(entries.order_by("pk")[:SHOWN])


def acts_in_words(acts: Sequence[LogEntry]) -> SafeString:
    lines = (
        (
            words.moment(act.action_time, zone=True),
            act.user.get_username(),
            act.get_change_message(),
        )
        for act in acts
    )
    text = '<li><span class="jobs-time">{}</span> {}: {}</li>'
    return format_html('<ul class="jobs-relations">{}</ul>', format_html_join("", text, lines))
