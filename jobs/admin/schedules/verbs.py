"""What an operator does to schedules. Each is an action of the list and a button on the page of a
schedule, for those with its permission, and is written to the admin's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.exceptions import ValidationError
from django.forms import model_to_dict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import (
    beat,
    ledger,
    schedules,
)
from jobs.admin.schedules import moments
from jobs.admin.schedules.form import ScheduleForm
from jobs.models import Schedule
from jobs.timing import clock

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


class Verb(NamedTuple):
    """Something that can be done to a schedule."""

    #: Of its action, and the end of its address.
    name: str
    label: _StrPromise
    #: "<permission>_schedule".
    permission: str
    #: Whether there is something to do.
    fits: Callable[[Schedule], bool]
    #: Does it; what to write to the log. Raises `ValidationError` or `SendError`.
    act: Callable[[Schedule], str]
    #: Whether it can't be taken back, and is asked for once more.
    asks: bool = False


def _run_now(schedule: Schedule) -> str:
    return _("Run by hand as %(id)s.") % {"id": beat.send_now(schedule)}


def _switch(schedule: Schedule, *, on: bool) -> str:
    schedule.enabled = on
    schedule.save(update_fields=["enabled"])
    return _("Enabled.") if on else _("Disabled.")


def _skip_next(schedule: Schedule) -> str:
    due = schedule.skip_next(clock.now())
    if due is None:
        raise ValidationError(_("There is no next run any more."))
    return _("The run of %(at)s is skipped.") % {"at": moments.in_zone(due, schedule.timezone)}


def _reset(schedule: Schedule) -> str:
    schedules.reset(schedule)
    return _("Reset to what code declares.")


def values_of_copy(schedule: Schedule) -> dict[str, Any]:
    """What the form has of it, under a name that is free, and disabled."""
    values = model_to_dict(schedule, fields=ScheduleForm.Meta.fields)
    return {**values, "name": _free_name(schedule.name), "enabled": False}


def _free_name(name: str) -> str:
    number = 1
    while True:
        end = _(" (copy)") if number == 1 else _(" (copy %(n)d)") % {"n": number}
        free = name[: 200 - len(end)] + end
        if not Schedule.objects.using(ledger.alias()).filter(name=free).exists():
            return free
        number += 1


def _duplicate(schedule: Schedule) -> str:
    copy = Schedule.objects.create(**values_of_copy(schedule))
    return _("Copied as “%(name)s”.") % {"name": copy.name}


RUN_NOW = Verb("run_now", gettext_lazy("Run now"), "run", lambda schedule: True, _run_now)
ENABLE = Verb(
    "enable",
    gettext_lazy("Enable"),
    "change",
    lambda schedule: not schedule.enabled,
    lambda schedule: _switch(schedule, on=True),
)
DISABLE = Verb(
    "disable",
    gettext_lazy("Disable"),
    "change",
    lambda schedule: schedule.enabled,
    lambda schedule: _switch(schedule, on=False),
)
SKIP_NEXT = Verb(
    "skip_next",
    gettext_lazy("Skip the next run"),
    "change",
    lambda schedule: schedule.enabled and schedule.next_run_at is not None,
    _skip_next,
)
DUPLICATE = Verb("duplicate", gettext_lazy("Duplicate"), "add", lambda schedule: True, _duplicate)
RESET = Verb(
    "reset",
    gettext_lazy("Reset to code…"),
    "change",
    lambda schedule: bool(schedules.edited(schedule)),
    _reset,
    asks=True,
)

VERBS = (RUN_NOW, ENABLE, DISABLE, SKIP_NEXT, DUPLICATE, RESET)
