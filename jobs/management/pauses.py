"""What is paused, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from jobs.control import Pause


def lines(queues: Mapping[str, Pause], tasks: Mapping[str, Pause]) -> Iterator[str]:
    """A line for each."""
    for name, pause in queues.items():
        yield _line(_("queue %s") % name, pause)
    for name, pause in tasks.items():
        yield _line(_("task %s") % name, pause)


def plain(pauses: Mapping[str, Pause]) -> dict[str, Any]:
    """For JSON."""
    return {
        name: {"by": pause.by, "why": pause.why, "at": pause.at.isoformat()}
        for name, pause in pauses.items()
    }


def _line(what: str, pause: Pause) -> str:
    at = timezone.localtime(pause.at).isoformat(" ", "seconds")
    named = {"what": what, "by": pause.by or "?", "at": at, "why": pause.why or "?"}
    return _("%(what)s: paused by %(by)s at %(at)s: %(why)s") % named
