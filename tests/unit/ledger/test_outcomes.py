"""How moments are written on SQLite."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.backends.sqlite3.base import DatabaseWrapper

from jobs.ledger.outcomes import _sqlite_moments
from jobs.models.moments import stored_in_sqlite

NOW = dt.datetime(2026, 11, 28, 7, 31, 5, 123_456, tzinfo=dt.UTC)


@pytest.fixture
def connection() -> DatabaseWrapper:
    """One that is never opened."""
    return DatabaseWrapper({"ENGINE": "django.db.backends.sqlite3", "TIME_ZONE": None})


@pytest.mark.parametrize(
    "moments",
    [
        [NOW, NOW.replace(microsecond=0), None, NOW.replace(microsecond=7)],
        [dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)],
        [NOW, NOW.astimezone(dt.timezone(dt.timedelta(hours=-5)))],
        [None, None],
    ],
)
def test_many_moments_are_written_like_single_ones(
    connection: DatabaseWrapper, moments: list[dt.datetime | None]
) -> None:
    singly = [stored_in_sqlite(moment, connection) for moment in moments]
    assert _sqlite_moments(moments, connection) == singly


def test_moments_are_written_as_django_does(connection: DatabaseWrapper) -> None:
    written = _sqlite_moments([NOW, NOW.replace(microsecond=0)], connection)
    assert written == ["2026-11-28 07:31:05.123456", "2026-11-28 07:31:05"]
    adapted = connection.ops.adapt_datetimefield_value
    assert written == [adapted(NOW), adapted(NOW.replace(microsecond=0))]
