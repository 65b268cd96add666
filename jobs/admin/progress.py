"""How far a running call is, on its page: a bar, and what the task says in words."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs.admin import words
from jobs.admin.survey import TROUBLE
from jobs.models import TaskResult
from jobs.running import progress
from jobs.running.progress import Progress
from jobs.states import State
from jobs.timing import clock


def of(row: TaskResult) -> Progress | None:
    """What the call says of itself, if it runs and the broker answers."""
    try:
        return progress.read(row.pk, row)
    except TROUBLE:
        return None


def shown(said: Progress) -> SafeString:
    line = format_html('<span class="jobs-sentence">{}</span>', in_words(said))
    if said.percent is None:
        return line
    bar = '<progress max="100" value="{}" aria-label="{}"></progress> {}'
    return format_html(bar, str(said.percent), _("progress"), line)


def in_words(said: Progress) -> str:
    """State, numbers, message and meta, as far as the task has told them, and when."""
    parts = [] if said.state == State.STARTED else [said.state]
    if said.percent is not None:
        told = {"done": _number(said.done), "total": _number(said.total), "percent": said.percent}
        parts.append(_("%(done)s of %(total)s (%(percent)d %%)") % told)
    elif said.done is not None:
        parts.append(_number(said.done))
    parts += [said.message] if said.message else []
    parts += [] if said.meta is None else [repr(said.meta)[:300]]
    return ", ".join([*parts, words.away(said.at, clock.now())])


def _number(value: float | None) -> str:
    return f"{value:,}"
