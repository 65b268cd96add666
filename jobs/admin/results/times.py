"""The timeline of a call: when it was sent, and what became of each of its attempts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs.admin import words
from jobs.models import TaskAttempt, TaskResult
from jobs.states import TERMINAL, State

#: A moment, and what happened then.
Step = tuple[dt.datetime, str]


def steps(row: TaskResult, attempts: Sequence[TaskAttempt]) -> list[Step]:
    """What happened and will happen, in order. ``attempts``: the former ones."""
    found: list[Step] = [(row.created_at, _("Sent"))]
    known = [attempt.retry_at for attempt in attempts]
    waited = {attempt.eta for attempt in attempts if attempt.eta not in (None, *known)}
    found += [(at, _("Not before")) for at in waited if at]
    # The sender notes it a moment later: a worker may have started the call before, which says
    # enough. Rows of former versions have the same time for both.
    noted_late = row.published_at and row.started_at and row.published_at >= row.started_at
    if row.published_at and (row.state == State.PENDING or not noted_late):
        found.append((row.published_at, _("Put on the queue")))
    for attempt in attempts:
        found += _former(attempt)
    found += _last(row, attempts)
    return sorted(found, key=lambda step: step[0])


def _former(attempt: TaskAttempt) -> list[Step]:
    number, name = attempt.number, attempt.error_type.rpartition(".")[2]
    found: list[Step] = []
    if attempt.started_at:
        found.append((attempt.started_at, _("Attempt %(n)d started") % {"n": number}))
    ended = _("Attempt %(n)d ended") % {"n": number}
    if name:
        ended = _("Attempt %(n)d failed: %(error)s") % {"n": number, "error": name}
    found.append((attempt.finished_at, ended))
    if attempt.retry_at:
        found.append((attempt.retry_at, _("Attempt %(n)d due") % {"n": number + 1}))
    if attempt.reopened_at:
        found.append((attempt.reopened_at, run_again(attempt)))
    return found


def run_again(attempt: TaskAttempt) -> str:
    """Who ran the call again after this attempt."""
    if not attempt.reopened_by:
        return _("Run again")
    return _("Run again by %(who)s") % {"who": attempt.reopened_by}


def _last(row: TaskResult, attempts: Sequence[TaskAttempt]) -> list[Step]:
    """The steps of the attempt that the row tells of."""
    found: list[Step] = []
    if row.eta and row.eta not in [at for a in attempts for at in (a.eta, a.retry_at)]:
        label = _("To be tried again") if row.state == State.RETRY else _("Not before")
        found.append((row.eta, label))
    # While the next attempt waits, the row still tells of the former one.
    if row.state == State.RETRY and row.attempts in [attempt.number for attempt in attempts]:
        return found
    several = row.attempts > 1
    # A revoked call has not started: a worker only noted that it never will.
    if row.started_at and row.state != State.REVOKED:
        label = _("Attempt %(n)d started") % {"n": row.attempts} if several else _("Started")
        found.append((row.started_at, label))
    if row.finished_at and row.state in TERMINAL:
        found.append((row.finished_at, _("Finished")))
    return found


def table(row: TaskResult, attempts: Sequence[TaskAttempt], now: dt.datetime) -> SafeString:
    """With the time since the step before, or until a step to come."""
    lines: list[tuple[str, str, str]] = []
    before: dt.datetime | None = None
    for at, label in steps(row, attempts):
        if at > now or before is None:
            since = words.away(at, now)
        else:
            since = f"+{words.duration(at - before)}"
        lines.append((label, words.moment(at, millis=True), since))
        before = at
    cells = format_html_join("", '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>', lines)
    return format_html(
        '<table class="jobs-timeline"><tbody>{}</tbody></table><p class="jobs-quiet">{}</p>',
        cells,
        _("Times are in %(zone)s.") % {"zone": timezone.get_current_timezone_name()},
    )
