"""Parts of a result's page: its progress while it runs, and its failed attempts."""

from __future__ import annotations

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs.admin import words
from jobs.admin.verbs import TROUBLE
from jobs.models import TaskResult
from jobs.running import progress
from jobs.running.progress import Progress
from jobs.states import State
from jobs.timing import clock

#: Most failed attempts on a page: a task may be tried without end.
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


def may_have_failed(row: TaskResult) -> bool:
    """Whether it is worth looking for failed attempts."""
    return row.attempts > 1 or row.state == State.RETRY


def failed_attempts(row: TaskResult) -> SafeString:
    """A table of the last failed attempts, in their order, each traceback folded away."""
    found = list(row.failed_attempts.order_by("-number")[: SHOWN + 1])
    if not found:
        return SafeString(_("None are kept."))
    lines = []
    for attempt in reversed(found[:SHOWN]):
        started, traceback = attempt.started_at, SafeString("")
        if attempt.traceback:
            traceback = format_html(
                "<details><summary>{}</summary>{}</details>",
                _("Traceback"),
                words.pre(attempt.traceback[-words.SHOWN :]),
            )
        lines.append(
            (
                attempt.number,
                words.moment(attempt.finished_at),
                "" if started is None else words.duration(attempt.finished_at - started),
                attempt.worker,
                words.error(attempt.error_type, attempt.error),
                traceback,
            )
        )
    heads = (_("Attempt"), _("Failed"), _("Ran"), _("Worker"), _("Why"))
    older = format_html('<p class="jobs-quiet">{}</p>', _("Older ones are not shown."))
    return format_html(
        '<div class="jobs-scroll"><table class="jobs-table jobs-attempts">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}",
        format_html_join("", '<th scope="col">{}</th>', ((text,) for text in heads)),
        format_html_join(
            "",
            '<tr><th scope="row">{}</th><td class="jobs-time">{}</td><td class="jobs-time">{}</td>'
            "<td>{}</td><td>{}{}</td></tr>",
            lines,
        ),
        older if len(found) > SHOWN else "",
    )
