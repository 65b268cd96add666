"""Pauses that grow, and what is logged of an outage."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, ProgrammingError

from jobs.exceptions import BrokerUnavailable
from jobs.ledger.refusals import is_cut, is_refusal
from jobs.worker.loops import Patience

BROKER = BrokerUnavailable("nobody listens")
DATABASE = OperationalError("the server has closed the connection")


@pytest.fixture
def patience() -> Patience:
    return Patience("{what} gone", "{what} there", longest=2.0)


def test_one_line_at_each_change(patience: Patience, caplog: pytest.LogCaptureFixture) -> None:
    patience.back()
    for _ in range(3):
        patience.away(BROKER)
    patience.back()
    patience.back()
    patience.away(BROKER)
    assert caplog.messages == [
        "broker gone: nobody listens",
        "broker there (after 3 tries)",
        "broker gone: nobody listens",
    ]


def test_when_the_other_is_away_the_first_is_back(
    patience: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    patience.away(BROKER)
    patience.away(DATABASE)
    assert patience.missing == "database"
    patience.back()
    assert patience.missing == ""
    assert [message.split(":")[0] for message in caplog.messages] == [
        "broker gone",
        "broker there (after 1 tries)",
        "database gone",
        "database there (after 1 tries)",
    ]


def test_pauses_grow_to_a_limit(patience: Patience) -> None:
    # Thousands of tries: an outage of hours.
    pauses = [patience.away(BROKER) for _ in range(5000)]
    for n, pause in enumerate(pauses[:5], start=1):
        assert 0.025 * 2**n <= pause <= 0.05 * 2**n
    assert all(1.0 <= pause <= 2.0 for pause in pauses[6:])
    assert len(set(pauses)) > 4000
    patience.back()
    assert patience.away(BROKER) <= 0.1


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


@pytest.mark.parametrize("state", ["57014", "55P03", "53200"])
def test_what_was_cut(state: str) -> None:
    error = with_state(OperationalError(), state)
    assert is_cut(error)
    assert not is_refusal(error)
    assert not is_cut(DATABASE)
