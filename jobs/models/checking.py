"""What a schedule sends, checked as far as it can be without knowing the task."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from jobs import conf


def check_what_is_sent(schedule: Any) -> None:
    """Raises `ValidationError` by field."""
    problems: dict[str, ValidationError] = {}
    for field, kind, words in (
        ("args", list, _('Write a JSON list, such as [17, "text"].')),
        ("kwargs", dict, _('Write a JSON object, such as {"copy": true}.')),
        ("headers", dict, _('Write a JSON object, such as {"tenant": "acme"}.')),
    ):
        if not isinstance(getattr(schedule, field), kind):
            problems[field] = ValidationError(words, code="type")
    for field in ("expires", "jitter", "misfire_window"):
        value = getattr(schedule, field)
        if value is not None and value < dt.timedelta(0):
            problems[field] = ValidationError(_("This can't be negative."), code="negative")
    queues = conf.get().queues
    queue = schedule.queue
    if queue and not conf.get().knows(queue):
        problems["queue"] = ValidationError(
            _("Queue “%(queue)s” is not declared in JOBS['QUEUES'].%(nearest)s"),
            code="queue",
            params={"queue": queue, "nearest": conf.nearest(queue, queues)},
        )
    if problems:
        raise ValidationError(problems)
