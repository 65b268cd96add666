"""Which errors of the database will come again, and which mean that it is away or busy."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, ProgrammingError

from jobs.exceptions import BrokerUnavailable
from jobs.ledger.refusals import is_cut, is_from_server, is_refusal, told

BROKER = BrokerUnavailable("nobody listens")
DATABASE = OperationalError("the server has closed the connection")


def with_state(error: Exception, state: str) -> Exception:
    """As Django wraps a driver's error that has a SQLSTATE."""
    cause = Exception()
    cause.sqlstate = state  # type: ignore[attr-defined]
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (BROKER, False),
        (DATABASE, False),
        (DatabaseError("database disk image is malformed"), False),
        (OperationalError("no such table: jobs_taskresult"), False),
        (MemoryError(), False),
        (IntegrityError("CHECK constraint failed"), True),
        (DataError("NUL"), True),
        (ProgrammingError("type is not supported"), True),
        (OverflowError("int too large"), True),
        (ValueError("NUL"), True),
        (with_state(OperationalError(), "54000"), True),
        (with_state(DatabaseError(), "22003"), True),
        (with_state(ProgrammingError(), "42P01"), False),
        (with_state(DatabaseError(), "25006"), False),
        (with_state(OperationalError(), "57P01"), False),
        (OperationalError(1366, "Incorrect string value"), True),
        (ProgrammingError(1146, "Table doesn't exist"), False),
    ],
)
def test_what_is_refused_is_told_from_an_outage(error: Exception, refused: bool) -> None:
    assert is_refusal(error) is refused


@pytest.mark.parametrize(
    ("error", "migrate"),
    [
        (OperationalError("no such table: jobs_taskresult"), True),
        (OperationalError("table jobs_taskresult has no column named label"), True),
        (with_state(ProgrammingError("relation does not exist\n"), "42P01"), True),
        (with_state(ProgrammingError("column does not exist"), "42703"), True),
        (ProgrammingError(1146, "Table doesn't exist"), True),
        (DATABASE, False),
        (BROKER, False),
        (with_state(OperationalError("terminated"), "57P01"), False),
    ],
)
def test_what_a_migration_ends_is_told(error: Exception, migrate: bool) -> None:
    text = str(error).strip()
    before = "a table or column is missing, so run manage.py migrate: " if migrate else ""
    assert told(error) == f"{before}{text}"


@pytest.mark.parametrize("state", ["57014", "55P03", "53200"])
def test_what_was_cut(state: str) -> None:
    error = with_state(OperationalError(), state)
    assert is_cut(error)
    assert not is_refusal(error)
    assert not is_cut(DATABASE)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DATABASE, False),
        (OperationalError(), False),
        (with_state(OperationalError("deadlock detected"), "40P01"), True),
        (OperationalError(1213, "Deadlock found when trying to get lock"), True),
        (OperationalError(2006, "Server has gone away"), False),
        (OperationalError(2013, "Lost connection to server during query"), False),
        (OperationalError(0, ""), False),
    ],
)
def test_what_a_server_has_said(error: Exception, said: bool) -> None:
    assert is_from_server(error) is said
