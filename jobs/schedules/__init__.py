"""Schedules that code declares, and their rows.

They are declared in three places (`declared`) and synchronised into rows when beat starts (`rows`):
what was edited in the admin stays as it is there, everything else follows the code (`merge`).
"""

from jobs.schedules.declared import add_periodic_task, problems
from jobs.schedules.merge import edited
from jobs.schedules.rows import (
    Step,
    Verb,
    reset,
    sync,
    synchronise,
)
from jobs.timing.celery import crontab, schedule

__all__ = [
    "Step",
    "Verb",
    "add_periodic_task",
    "crontab",
    "edited",
    "problems",
    "reset",
    "schedule",
    "sync",
    "synchronise",
]
