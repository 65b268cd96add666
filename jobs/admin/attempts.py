"""The failed attempts on the page of a result."""

from __future__ import annotations

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs.admin import words
from jobs.admin.words import pre
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State

#: Most of them on the page: a task may be tried for ever.
SHOWN = 50


def may_have(row: TaskResult) -> bool:
    """Whether it is worth looking for them."""
    return row.attempts > 1 or row.state == State.RETRY


def table(row: TaskResult) -> SafeString:
    """The last of them, in their order, each traceback folded away."""
    found = list(row.failed_attempts.order_by("-number")[: SHOWN + 1])
    if not found:
        return SafeString(_("None are kept."))
    heads = (_("Attempt"), _("Failed"), _("Ran"), _("Worker"), _("Why"))
    head = format_html_join("", '<th scope="col">{}</th>', ((text,) for text in heads))
    lines = format_html_join("", "{}", ((_line(one),) for one in reversed(found[:SHOWN])))
    older = format_html('<p class="jobs-quiet">{}</p>', _("Older ones are not shown."))
    return format_html(
        '<div class="jobs-scroll"><table class="jobs-table jobs-attempts">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}",
        head,
        lines,
        older if len(found) > SHOWN else "",
    )


def _line(attempt: TaskAttempt) -> SafeString:
    started = attempt.started_at
    ran = "" if started is None else words.duration(attempt.finished_at - started)
    return format_html(
        '<tr><th scope="row">{}</th><td class="jobs-time">{}</td><td class="jobs-time">{}</td>'
        "<td>{}</td><td>{}{}</td></tr>",
        attempt.number,
        words.moment(attempt.finished_at),
        ran,
        attempt.worker,
        words.error(attempt.error_type, attempt.error),
        _folded(attempt.traceback),
    )


def _folded(traceback: str) -> SafeString:
    if not traceback:
        return SafeString("")
    text = pre(traceback[-words.SHOWN :])
    return format_html("<details><summary>{}</summary>{}</details>", _("Traceback"), text)
