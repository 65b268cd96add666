"""Tasks of this app itself."""

from __future__ import annotations

from collections import Counter

from django.utils import timezone

from jobs import pruning, registry
from jobs.cron import crontab
from jobs.declaring import Periodic

#: How long one run may take, in seconds: it must not keep a worker from other tasks.
_SECONDS = 20.0


@registry.task(
    name="jobs.prune",
    schedule=Periodic(
        crontab(minute=17, hour=3),
        name="jobs: prune results",
        description="Deletes results and the history of schedules when they are old enough.",
        overlap="skip",
    ),
    priority=9,
)
def prune() -> dict[str, int]:
    """Delete results and the history of schedules that are older than the settings keep them. How
    many rows of each kind."""
    gone: Counter[str] = Counter()
    if not pruning.prune(
        timezone.now(), seconds=_SECONDS, done=lambda what, count: gone.update({what: count})
    ):
        prune.delay()  # the rest, after what else waits
    return dict(gone)
