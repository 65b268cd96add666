# ruff: noqa: DJ001, DJ008
"""Translate schedules of django-celery-beat into rows here, with notes on what has no equal."""

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

#: Keeps these models apart from the project's: they get no migrations, and don't collide with the
#: package's own where that is still installed.
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
    connection, table = connections[using], model._meta.db_table
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return []
        found = connection.introspection.get_table_description(cursor, table)
    columns = {column.name for column in found}
    names = [f.name for f in model._meta.concrete_fields if f.column in columns]
    if not names:
        return []
    rows = model._default_manager.using(using).order_by("pk").values(*names)
    # With USE_TZ off, moments come without a zone.
    return [
        model(**{n: clock.aware(v) if isinstance(v, dt.datetime) else v for n, v in row.items()})
        for row in rows
    ]


#: Celery's own upkeep, which it adds to the table by itself.
_UPKEEP = "celery.backend_cleanup"
_LISTS = str.maketrans("", "", "[]{}() ")


@dataclass(slots=True)
class Import:
    """What becomes of one row there."""

    name: str
    #: Not saved. None: it can't be imported, or is left alone.
    schedule: Schedule | None = None
    #: For a person: what differs from the original.
    notes: list[str] = field(default_factory=list)
    #: There is a schedule of this name already.
    known: bool = False

    def refuse(self, note: str) -> None:
        self.notes.append(note)
        self.schedule = None


def plan(using: str, taken: Mapping[str, str]) -> list[Import]:
    """What there is to import from a database, in the order of names.

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
    """Write them, all or none; gives how many."""
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
    schedule = made.schedule = Schedule(
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
    try:
        _set_rule(schedule, old, rules)
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
    except (ValueError, OverflowError, ConfigurationError) as error:
        made.refuse(str(error))
        return made
    made.notes += _doubts(schedule, old)
    if made.notes and old.enabled:
        schedule.enabled = False
        made.notes.append(_("It is imported switched off."))
    # What is not as it was, and does no harm.
    if old.exchange and not schedule.exchange:
        made.notes.append(_("Its exchange %s is lost.") % old.exchange)
    if old.priority is not None and old.priority > 9:
        made.notes.append(_("Its priority %d is 9 here, the last.") % old.priority)
    try:
        schedule.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        made.refuse(" ".join(error.messages))
    return made


def _set_rule(schedule: Schedule, old: PeriodicTask, rules: Mapping[str, Any]) -> None:
    if "crontab" in rules:
        rule = rules["crontab"]
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        # Some of Celery's lists were stored as Python prints them: "[1, 15]".
        texts = [getattr(rule, name).translate(_LISTS) or "*" for name in fields]
        schedule.crontab = crontab(*texts).text
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


def _doubts(schedule: Schedule, old: PeriodicTask) -> list[str]:
    """Why it can't simply go on here, and somebody has to look at it."""
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
    elif not schedule.queue and (schedule.exchange or schedule.routing_key):
        try:
            said = Route("", schedule.exchange, schedule.routing_key)
            routing.get().lead(schedule.task, said)
        except (UnknownQueue, NoRoute):
            schedule.exchange = schedule.routing_key = ""
            if old.routing_key:
                found.append(_("Its routing key %s is lost: choose a queue.") % old.routing_key)
    if old.one_off and schedule.at is None:
        found.append(_("It was to run only once: choose “once at” instead of its rule."))
    return found
