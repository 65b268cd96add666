"""The field of every moment that the job system stores."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from jobs.timing import clock

_ST = TypeVar("_ST", contravariant=True)
_GT = TypeVar("_GT", covariant=True)

if TYPE_CHECKING:
    _DateTimeField = models.DateTimeField
else:

    class _DateTimeField(models.DateTimeField):
        def __class_getitem__(cls, _types: Any) -> Any:  # which Django's has for checkers alone
            return cls


class MomentField(_DateTimeField[_ST, _GT]):
    """Django's `DateTimeField`, whose values are aware with USE_TZ off as well.

    Databases without a type for moments (all but PostgreSQL) store UTC, as they do with USE_TZ on:
    no moment is told twice where clocks go back, and the setting may be changed.
    """

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def get_default(self) -> Any:
        return dt.datetime.now(dt.UTC) if self.default is timezone.now else super().get_default()

    def to_python(self, value: Any) -> Any:
        value = super().to_python(value)
        return value if settings.USE_TZ else clock.aware(value)

    def get_db_prep_value(
        self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False
    ) -> Any:
        if not prepared:
            value = self.get_prep_value(value)
        return stored(value, connection) if isinstance(value, dt.datetime) else value

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> Any:
        return [] if settings.USE_TZ else [_read]


def stored(moment: dt.datetime | None, connection: BaseDatabaseWrapper) -> Any:
    """An aware moment as this database takes it; None as it is."""
    if connection.vendor == "sqlite":
        return stored_in_sqlite(moment, connection)
    if moment is not None and not settings.USE_TZ and connection.vendor != "postgresql":
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return connection.ops.adapt_datetimefield_value(moment)


def stored_in_sqlite(moment: dt.datetime | None, connection: BaseDatabaseWrapper) -> Any:
    """`stored`, for a connection that is known to be one of SQLite."""
    if moment is None:
        return None
    # Django takes four microseconds to make a moment naive. Nearly all are in UTC, as stored.
    if moment.tzinfo is dt.UTC and keeps_utc(connection):
        return str(moment)[:-6]  # without +00:00
    if not settings.USE_TZ:
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return connection.ops.adapt_datetimefield_value(moment)


def keeps_utc(connection: BaseDatabaseWrapper) -> bool:
    """Whether this SQLite stores moments in UTC, and not in a time zone of its settings."""
    return not settings.USE_TZ or connection.timezone is dt.UTC


def _read(value: Any, _expression: Any, connection: BaseDatabaseWrapper) -> Any:
    """With USE_TZ off, what Django has read without a zone."""
    if value is None or timezone.is_aware(value):
        return value
    if connection.vendor == "postgresql":
        zone: dt.tzinfo = zoneinfo.ZoneInfo(connection.timezone_name)  # of its session
    else:
        zone = dt.UTC
    return value.replace(tzinfo=zone).astimezone(dt.UTC)
