"""Parts of a result's page: its progress while it runs, and its former attempts."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs.admin import words
from jobs.admin.results import times, tracebacks
from jobs.admin.verbs import TROUBLE
from jobs.models import TaskAttempt, TaskResult
from jobs.running import progress
from jobs.running.progress import Progress
from jobs.states import State
from jobs.timing import clock

#: Most former attempts on a page: a task may be tried without end.
SHOWN = 50


def progress_of(row: TaskResult) -> Progress | None:
    """None unless the call runs, has reported its progress, and the broker answers."""
    try:
        return progress.read(row.pk, row)
    except TROUBLE:
        return None


def progress_bar(said: Progress) -> SafeString:
    """What the call reports: state, numbers, message and meta in words, and when it did.

    With a bar when it has said how much there is to do.
    """
    parts = [] if said.state == State.STARTED else [said.state]
    if said.percent is not None:
        numbers = {"done": f"{said.done:,}", "total": f"{said.total:,}", "percent": said.percent}
        parts.append(_("%(done)s of %(total)s (%(percent)d %%)") % numbers)
    elif said.done is not None:
        parts.append(f"{said.done:,}")
    parts += [said.message] if said.message else []
    parts += [] if said.meta is None else [repr(said.meta)[:300]]
    text = ", ".join([*parts, words.away(said.at, clock.now())])
    line = format_html('<span class="jobs-sentence">{}</span>', text)
    if said.percent is None:
        return line
    bar = '<progress max="100" value="{}" aria-label="{}"></progress> {}'
    return format_html(bar, str(said.percent), _("progress"), line)


def attempts(row: TaskResult) -> list[TaskAttempt]:
    """The last of its former attempts, in their order, and one more than are shown; read once for a
    page."""
    kept: dict[str, Any] = vars(row)
    if "_attempts" not in kept:
        found: list[TaskAttempt] = []
        if row.attempts > 1 or row.state in (State.RETRY, State.PENDING):
            found = list(row.failed_attempts.order_by("-number")[: SHOWN + 1])[::-1]
        kept["_attempts"] = found
    all_of_them: list[TaskAttempt] = kept["_attempts"]
    return all_of_them


def has_former_attempts(row: TaskResult) -> bool:
    return row.attempts > 1 or row.state == State.RETRY or bool(attempts(row))


def failed_attempts(row: TaskResult) -> SafeString:
    """A table of the former attempts, each traceback folded away."""
    found = attempts(row)
    if not found:
        return SafeString(_("None are kept."))
    lines = []
    for attempt in found[-SHOWN:]:
        started, traceback = attempt.started_at, SafeString("")
        if attempt.traceback:
            traceback = format_html(
                "<details><summary>{}</summary>{}</details>",
                _("Traceback"),
                tracebacks.shown(attempt.traceback[-words.SHOWN :]),
            )
        lines.append(
            (
                attempt.number,
                words.moment(attempt.finished_at, zone=True),
                "" if started is None else words.duration(attempt.finished_at - started),
                attempt.worker,
                _why(attempt),
                traceback,
                _then(attempt),
            )
        )
    titles = (_("Attempt"), _("Ended"), _("Ran"), _("Worker"), _("Why"), _("Then"))
    older = format_html('<p class="jobs-quiet">{}</p>', _("Older ones are not shown."))
    return format_html(
        '<div class="jobs-scroll"><table class="jobs-table jobs-attempts">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}",
        format_html_join("", '<th scope="col">{}</th>', ((text,) for text in titles)),
        format_html_join(
            "",
            '<tr><th scope="row">{}</th><td class="jobs-time">{}</td><td class="jobs-time">{}</td>'
            '<td>{}</td><td class="jobs-reason">{}{}</td><td>{}</td></tr>',
            lines,
        ),
        older if len(found) > SHOWN else "",
    )


def _why(attempt: TaskAttempt) -> str:
    if attempt.error_type or attempt.error:
        return words.error(attempt.error_type, attempt.error)
    return _("Succeeded.")


def _then(attempt: TaskAttempt) -> str:
    """What came after it: a retry, or a person."""
    if attempt.reopened_at:
        at = words.moment(attempt.reopened_at, zone=True)
        return _("%(what)s at %(at)s") % {"what": times.run_again(attempt), "at": at}
    if attempt.retry_at:
        return _("Due again at %(at)s") % {"at": words.moment(attempt.retry_at, zone=True)}
    return ""


def last_run_again(row: TaskResult) -> str:
    """Who ran the call again last, and when; empty: nobody."""
    again = [attempt for attempt in attempts(row) if attempt.reopened_at]
    return f"{_then(again[-1])}." if again else ""
