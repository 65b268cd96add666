"""What an operator does to schedules: run, enable, disable, skip, duplicate, reset them."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

from django.core.exceptions import ValidationError
from django.forms import model_to_dict
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from jobs import beat, ledger, schedules
from jobs.admin.schedules import rules
from jobs.admin.schedules.form import ScheduleForm
from jobs.admin.verbs import Question, verb
from jobs.exceptions import SendError
from jobs.models import Schedule
from jobs.timing import clock

_verb = partial(
    verb,
    done=ngettext_lazy("%(verb)s: %(n)d schedule.", "%(verb)s: %(n)d schedules.", "n"),
    left_out=ngettext_lazy(
        "%(n)d is left as it is: there was nothing to do.",
        "%(n)d are left as they are: there was nothing to do.",
        "n",
    ),
)


@_verb(label=gettext_lazy("Run now"), permission="run_schedule")
def run_now(schedule: Schedule, request: HttpRequest) -> str:
    try:
        return _("Run by hand as %(id)s.") % {"id": beat.send_now(schedule)}
    except SendError as error:
        raise ValidationError(str(error)) from error


@_verb(
    label=gettext_lazy("Enable"),
    permission="change_schedule",
    fits=lambda schedule: not schedule.enabled,
)
def enable(schedule: Schedule, request: HttpRequest) -> str:
    schedule.enabled = True
    schedule.save(update_fields=["enabled"])
    return _("Enabled.")


@_verb(
    label=gettext_lazy("Disable"),
    permission="change_schedule",
    fits=lambda schedule: schedule.enabled,
)
def disable(schedule: Schedule, request: HttpRequest) -> str:
    schedule.enabled = False
    schedule.save(update_fields=["enabled"])
    return _("Disabled.")


@_verb(
    label=gettext_lazy("Skip the next run"),
    permission="change_schedule",
    fits=lambda schedule: schedule.enabled and schedule.next_run_at is not None,
)
def skip_next(schedule: Schedule, request: HttpRequest) -> str:
    due = schedule.skip_next(clock.now())
    if due is None:
        raise ValidationError(_("There is no next run any more."))
    return _("The run of %(at)s is skipped.") % {"at": rules.in_zone(due, schedule.timezone)}


@_verb(label=gettext_lazy("Duplicate"), permission="add_schedule")
def duplicate(schedule: Schedule, request: HttpRequest) -> str:
    copy = Schedule.objects.create(**values_of_copy(schedule))
    return _("Copied as “%(name)s”.") % {"name": copy.name}


@_verb(
    label=gettext_lazy("Reset to code…"),
    permission="change_schedule",
    fits=lambda schedule: bool(schedules.edited(schedule)),
    question=Question(
        text=ngettext_lazy(
            "%(n)s schedule will be reset to what code declares. What was edited in the admin is "
            "lost.",
            "%(n)s schedules will be reset to what code declares. What was edited in the admin is "
            "lost.",
            "n",
        ),
    ),
    destroys=True,
)
def reset(schedule: Schedule, request: HttpRequest) -> str:
    schedules.reset(schedule)
    return _("Reset to what code declares.")


VERBS = (run_now, enable, disable, skip_next, duplicate, reset)


def values_of_copy(schedule: Schedule) -> dict[str, Any]:
    """Its values in the form, under a name that is free; the copy is disabled."""
    values = model_to_dict(schedule, fields=ScheduleForm.Meta.fields)
    for number in count(1):
        end = _(" (copy)") if number == 1 else _(" (copy %(n)d)") % {"n": number}
        values |= {"name": schedule.name[: 200 - len(end)] + end, "enabled": False}
        if not Schedule.objects.using(ledger.alias()).filter(name=values["name"]).exists():
            break
    return values
