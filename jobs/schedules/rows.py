"""Write declarations into rows, from any number of processes at once."""

from __future__ import annotations

import enum
import logging
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, router, transaction
from django.db.models import Q

from jobs.exceptions import ConfigurationError
from jobs.models import Schedule
from jobs.schedules import declared, merge
from jobs.schedules.declared import Declaration

log = logging.getLogger("jobs.beat")

#: Key in ``Schedule.declared`` of what code dropped: whether it was enabled before.
_BEFORE = "enabled_before"


class Verb(enum.StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    #: Code has dropped it: it is switched off.
    DROPPED = "dropped"
    #: Code declares it again: it is as it was before.
    RETURNED = "returned"
    #: It was made in the admin, and from now on belongs to the code as well.
    ADOPTED = "adopted"
    #: It was made in the admin, and is left alone.
    TAKEN = "taken"
    #: It can't become a row, or the row can't become what code says.
    REFUSED = "refused"


class Step(NamedTuple):
    """What becomes of one schedule."""

    verb: Verb
    name: str
    #: For a person: what changed, or why it can't be done.
    detail: str = ""
    #: Fields of the row → their new values.
    values: dict[str, Any] = {}

    @property
    def failed(self) -> bool:
        return self.verb in (Verb.TAKEN, Verb.REFUSED)


def sync() -> list[Step]:
    """`synchronise` and log each step, as beat does at its start."""
    steps = synchronise()
    for step in steps:
        if step.failed:
            log.error("schedule %r as code declares it: %s: %s", step.name, step.verb, step.detail)
        else:
            log.info("schedule %r as code declares it: %s. %s", step.name, step.verb, step.detail)
    return steps


def synchronise(*, write: bool = True, adopt: bool = False) -> list[Step]:
    """Bring the rows in line with what code declares, except where somebody edited them. Returns
    the steps that it took or, without ``write``, would take.

    ``adopt``: let schedules that were made in the admin under a declared name belong to the code.
    Their values stay, as edits do. Otherwise they are left alone.
    """
    found = declared.find()
    names = [one.name for one in found]
    stored = Schedule.objects.using(router.db_for_write(Schedule))
    rows = {r.name: r for r in stored.filter(Q(declared__isnull=False) | Q(name__in=names))}
    steps = []
    for one in found:
        step = _step(one, rows.get(one.name), adopt=adopt)
        if step is not None:
            steps.append(_write(one, step, adopt=adopt) if write else step)
    for name in sorted(rows.keys() - set(names)):
        step = _drop(rows[name])
        if step is not None:
            steps.append(_write(None, step, adopt=adopt) if write else step)
    return [step for step in steps if step is not None]


def reset(schedule: Schedule) -> None:
    """Undo all edits: make a schedule say what code declares. One that code has dropped stays
    switched off. Raises `ConfigurationError` for one that was made in the admin."""
    if schedule.declared is None:
        raise ConfigurationError(
            f"The schedule {schedule.name!r} isn't declared in code: there is nothing to reset to."
        )
    said = {name: schedule.declared[name] for name in merge.FIELDS if name in schedule.declared}
    if schedule.dropped:
        said["enabled"] = False
    _save(schedule, merge.restored(said))


# ------------------------------------------------------------------------------- deciding


def _step(one: Declaration, row: Schedule | None, *, adopt: bool) -> Step | None:
    """What there is to do about a declaration; None when the row says so already."""
    if one.problem:
        return Step(Verb.REFUSED, one.name, one.problem)
    new = one.values()
    if row is None:
        return Step(Verb.CREATED, one.name, one.task, {**merge.restored(new), "declared": new})
    if row.declared is None:
        if adopt:
            return Step(Verb.ADOPTED, row.name, row.task, {"declared": new})
        return Step(
            Verb.TAKEN,
            row.name,
            "a schedule of this name was made in the admin, and is left alone. Rename one of the "
            "two, or run jobs_sync_schedules --adopt.",
        )
    stored = merge.plain(row)
    if row.dropped:
        stored["enabled"] = row.enabled or row.declared.get(_BEFORE, True)
    values = merge.restored(merge.merged(stored, row.declared, new))
    if row.dropped:
        values = {"enabled": stored["enabled"], **values, "dropped": False}
    detail = ", ".join(sorted(values.keys() - {"dropped"}))
    if row.declared != new:
        values["declared"] = new
    if not values:
        return None
    return Step(Verb.RETURNED if row.dropped else Verb.CHANGED, one.name, detail, values)


def _drop(row: Schedule) -> Step | None:
    if row.dropped or row.declared is None:
        return None
    noted = {**row.declared, _BEFORE: row.enabled}
    values = {"enabled": False, "dropped": True, "declared": noted}
    return Step(Verb.DROPPED, row.name, row.task, values)


# -------------------------------------------------------------------------------- writing


def _write(one: Declaration | None, step: Step, *, adopt: bool) -> Step | None:
    """Take a step, unless another process has; gives the step that was taken."""
    if step.failed:
        return step
    try:
        return _decide_and_save(one, step.name, adopt=adopt)
    except IntegrityError:
        # Made by another process since we looked.
        return _decide_and_save(one, step.name, adopt=adopt)
    except ValidationError as error:
        return Step(Verb.REFUSED, step.name, " ".join(error.messages))


def _decide_and_save(one: Declaration | None, name: str, *, adopt: bool) -> Step | None:
    alias = router.db_for_write(Schedule)
    with transaction.atomic(using=alias):
        rows = Schedule.objects.using(alias).filter(name=name)
        if connections[alias].features.has_select_for_update:
            rows = rows.select_for_update()
        row = rows.first()
        if one is None:
            step = _drop(row) if row else None
        else:
            step = _step(one, row, adopt=adopt)
        if step is not None and step.values:
            if row is None:
                Schedule(name=name, **step.values).save(using=alias, force_insert=True)
            else:
                _save(row, step.values)
    return step


def _save(row: Schedule, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=list(values))
