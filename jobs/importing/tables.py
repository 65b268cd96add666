"""The tables of django-celery-beat, read without the package: it need not be installed any more.

Columns that an older version doesn't have are left at their defaults.
"""

# ruff: noqa: DJ001, DJ008  they are as somebody else made them

from __future__ import annotations

import datetime as dt
from typing import Any, TypeVar

from django.apps.registry import Apps
from django.db import connections, models

from jobs import clock

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
