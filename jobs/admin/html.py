"""Pieces of HTML that the pages share."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString

from jobs.models import TaskResult


def badge(row: TaskResult) -> SafeString:
    """Its state, in colour."""
    return format_html(
        '<span class="jobs-state jobs-state-{}">{}</span>',
        row.state.lower(),
        row.get_state_display(),
    )


def pre(text: str) -> SafeString:
    """A value as it is laid out."""
    return format_html('<pre class="jobs-value" tabindex="0">{}</pre>', text)
