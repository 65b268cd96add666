# ruff: noqa: DJ001, DJ008
"""Schedules of django-celery-beat as this program's, with a word on what has no equal."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.apps.registry import Apps
from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction
from django.utils.translation import gettext as _

from jobs import (
    conf,
    registry,
    routing,
    timing,
)
from jobs.exceptions import ConfigurationError, NoRoute, UnknownQueue
from jobs.models import Schedule
from jobs.routing import Route
from jobs.timing import clock
from jobs.timing.celery import crontab

#: Apart from the project's models: no migration is made of these, and the package may be there.
_apart = Apps()

_Table = TypeVar("_Table", bound="Table")


class Table(models.Model):
    class Meta:
        abstract = True
        apps = _apart
        app_label = "django_celery_beat"
        managed = False


class Crontab(Table):
    minute = models.TextField(default="*")
    hour = models.TextField(default="*")
    day_of_week = models.TextField(default="*")
    day_of_month = models.TextField(default="*")
    month_of_year = models.TextField(default="*")
    timezone = models.TextField(default="UTC")

    class Meta(Table.Meta):
        db_table = "django_celery_beat_crontabschedule"


class Interval(Table):
    every = models.IntegerField()
    period = models.TextField()

    class Meta(Table.Meta):
        db_table = "django_celery_beat_intervalschedule"


class Solar(Table):
    event = models.TextField()

    class Meta(Table.Meta):
        db_table = "django_celery_beat_solarschedule"


class Clocked(Table):
    clocked_time = models.DateTimeField()

    class Meta(Table.Meta):
        db_table = "django_celery_beat_clockedschedule"


class PeriodicTask(Table):
    name = models.TextField()
    task = models.TextField()
    interval_id = models.IntegerField(null=True)
    crontab_id = models.IntegerField(null=True)
    solar_id = models.IntegerField(null=True)
    clocked_id = models.IntegerField(null=True)
    args = models.TextField(default="[]")
    kwargs = models.TextField(default="{}")
    queue = models.TextField(null=True)
    exchange = models.TextField(null=True)
    routing_key = models.TextField(null=True)
    headers = models.TextField(null=True)
    priority = models.IntegerField(null=True)
    expires = models.DateTimeField(null=True)
    expire_seconds = models.IntegerField(null=True)
    one_off = models.BooleanField(default=False)
    start_time = models.DateTimeField(null=True)
    enabled = models.BooleanField(default=True)
    last_run_at = models.DateTimeField(null=True)
    total_run_count = models.IntegerField(default=0)
    description = models.TextField(default="")

    class Meta(Table.Meta):
        db_table = "django_celery_beat_periodictask"


def exist(using: str) -> bool:
    """Whether this database has had django-celery-beat."""
    connection = connections[using]
    with connection.cursor() as cursor:
        return PeriodicTask._meta.db_table in connection.introspection.table_names(cursor)


def read(model: type[_Table], using: str) -> list[_Table]:
    """All rows; none where there is no such table."""
    columns = _columns(model._meta.db_table, using)
    names = [f.name for f in model._meta.concrete_fields if f.column in columns]
    if not names:
        return []
    rows = model._default_manager.using(using).order_by("pk").values(*names)
    return [model(**{name: _aware(value) for name, value in row.items()}) for row in rows]


def _aware(value: Any) -> Any:
    """With USE_TZ off, moments come without a zone."""
    return clock.aware(value) if isinstance(value, dt.datetime) else value


def _columns(table: str, using: str) -> set[str]:
    connection = connections[using]
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return set()
        found = connection.introspection.get_table_description(cursor, table)
    return {column.name for column in found}


#: Celery's own upkeep, which it adds to the table by itself.
_UPKEEP = "celery.backend_cleanup"
_LISTS = str.maketrans("", "", "[]{}() ")


@dataclass(slots=True)
class Import:
    """What becomes of one row."""

    name: str
    #: Not saved. None: it can't be imported, or is left alone.
    schedule: Schedule | None = None
    #: For a person: what is not as it was.
    notes: list[str] = field(default_factory=list)
    #: It is there already.
    known: bool = False

    def refuse(self, note: str) -> None:
        self.notes.append(note)
        self.schedule = None


def plan(using: str, taken: Mapping[str, str]) -> list[Import]:
    """What there is to import from a database, by name.

    ``taken``: names that are left alone → why.
    """
    kinds: dict[str, dict[int, Any]] = {
        "crontab": {row.pk: row for row in read(Crontab, using)},
        "interval": {row.pk: row for row in read(Interval, using)},
        "solar": {row.pk: row for row in read(Solar, using)},
        "clocked": {row.pk: row for row in read(Clocked, using)},
    }
    found = []
    for old in sorted(read(PeriodicTask, using), key=lambda row: row.name):
        if old.name in taken:
            found.append(Import(old.name, notes=[taken[old.name]], known=True))
        else:
            rules = {kind: kinds[kind].get(getattr(old, f"{kind}_id")) for kind in kinds}
            found.append(_translated(old, {kind: rule for kind, rule in rules.items() if rule}))
    return found


def save(imports: list[Import]) -> int:
    """Write them, all or none; how many."""
    alias = router.db_for_write(Schedule)
    made = [one.schedule for one in imports if one.schedule is not None]
    with transaction.atomic(using=alias):
        for schedule in made:
            schedule.save(using=alias, force_insert=True)
    return len(made)


# ---------------------------------------------------------------------------- translating


def _translated(old: PeriodicTask, rules: Mapping[str, Any]) -> Import:
    made = Import(old.name)
    if old.task == _UPKEEP:
        made.refuse(_("Not needed: the task jobs.prune deletes old results here."))
        return made
    made.schedule = _what_is_sent(old)
    try:
        _set_rule(made.schedule, old, rules)
        _set_json(made.schedule, old)
    except (ValueError, OverflowError, ConfigurationError) as error:
        made.refuse(str(error))
        return made
    problems = [*_doubts(made.schedule, old)]
    if problems and old.enabled:
        made.schedule.enabled = False
        problems.append(_("It is imported switched off."))
    made.notes += [*problems, *_losses(made.schedule, old)]
    _check(made)
    return made


def _what_is_sent(old: PeriodicTask) -> Schedule:
    return Schedule(
        name=old.name,
        description=old.description,
        task=old.task,
        queue=old.queue or "",
        exchange=old.exchange or "",
        routing_key=old.routing_key or "",
        priority=None if old.priority is None else min(old.priority, 9),
        expires=None if old.expire_seconds is None else dt.timedelta(seconds=old.expire_seconds),
        timezone=timing.default_zone(),
        start_at=old.start_time,
        end_at=old.expires,
        enabled=old.enabled,
        last_run_at=old.last_run_at,
        runs=old.total_run_count,
    )


def _set_json(schedule: Schedule, old: PeriodicTask) -> None:
    for name in ("args", "kwargs", "headers"):
        text = getattr(old, name)
        try:
            value = json.loads(text) if text else None
        except ValueError as error:
            raise ValueError(
                _("Its %(field)s are not JSON: %(text)s") % {"field": name, "text": text}
            ) from error
        if value is not None:
            setattr(schedule, name, value)


def _set_rule(schedule: Schedule, old: PeriodicTask, rules: Mapping[str, Any]) -> None:
    if "crontab" in rules:
        rule = rules["crontab"]
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        schedule.crontab = crontab(*(_field(getattr(rule, name)) for name in fields)).text
        schedule.timezone = rule.timezone
    elif "interval" in rules:
        rule = rules["interval"]
        try:
            schedule.interval = dt.timedelta(**{rule.period: rule.every})
        except TypeError:
            raise ValueError(_("Its interval has no unit: %s") % rule.period) from None
        # Its due times go on as they were.
        schedule.start_at = old.start_time or old.last_run_at
    elif "clocked" in rules:
        schedule.at = rules["clocked"].clocked_time
        schedule.start_at = schedule.end_at = None
    elif "solar" in rules:
        raise ValueError(
            _("“%s” depends on the sun, and there is no such rule here.") % rules["solar"].event
        )
    else:
        raise ValueError(_("It has no rule."))


def _field(text: str) -> str:
    """Some of Celery's lists were stored as Python prints them: ``[1, 15]``."""
    return text.translate(_LISTS) or "*"


def _doubts(schedule: Schedule, old: PeriodicTask) -> list[str]:
    """Why it can't simply go on here; someone has to look at it."""
    found = []
    task = registry.tasks.get(schedule.task)
    if task is None:
        found.append(_("No task is called %s here.") % schedule.task)
    else:
        try:
            task.check_arguments(schedule.args, schedule.kwargs)
        except TypeError as error:
            found.append(str(error))
    if schedule.queue and not conf.get().knows(schedule.queue):
        found.append(_("JOBS['QUEUES'] does not declare its queue %s.") % schedule.queue)
        schedule.queue = schedule.exchange = schedule.routing_key = ""
    elif not _leads_somewhere(schedule):
        schedule.exchange = schedule.routing_key = ""
        if old.routing_key:
            found.append(_("Its routing key %s is lost: choose a queue.") % old.routing_key)
    if old.one_off and schedule.at is None:
        found.append(_("It was to run only once: choose “once at” instead of its rule."))
    return found


def _leads_somewhere(schedule: Schedule) -> bool:
    """Whether its queue, or else its exchange and routing key, are declared here."""
    if schedule.queue or not (schedule.exchange or schedule.routing_key):
        return True
    said = Route("", schedule.exchange, schedule.routing_key)
    try:
        routing.get().lead(schedule.task, said)
    except (UnknownQueue, NoRoute):
        return False
    return True


def _losses(schedule: Schedule, old: PeriodicTask) -> list[str]:
    """What is not as it was, and does no harm."""
    found = []
    if old.exchange and not schedule.exchange:
        found.append(_("Its exchange %s is lost.") % old.exchange)
    if old.priority is not None and old.priority > 9:
        found.append(_("Its priority %d is 9 here, the last.") % old.priority)
    return found


def _check(made: Import) -> None:
    assert made.schedule is not None
    try:
        made.schedule.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        made.refuse(" ".join(error.messages))
