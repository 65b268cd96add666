"""Tell errors that come again with the same values from those that another try may not meet."""

from __future__ import annotations

from django.db import DataError, IntegrityError, NotSupportedError, ProgrammingError
from django.db import Error as DatabaseError
from django.db import InternalError as DatabaseInternalError
from django.db.transaction import TransactionManagementError

from jobs.exceptions import BrokerUnavailable

#: Classes of SQLSTATE by which a database refuses values: too many or too few, data, constraints,
#: unsupported features, a view's check option, limits of its own, a trigger's RAISE. Not class 42
#: (a table, a column or a right is missing): a migration or a GRANT ends that.
_REFUSING = frozenset({"0A", "21", "22", "23", "44", "54", "P0"})
#: The same as numbers of MySQL and MariaDB. Their drivers disagree about the classes of these.
_REFUSING_NUMBERS = frozenset(
    {1048, 1062, 1264, 1265, 1267, 1271, 1292, 1300, 1366, 1406, 1690, 3140, 3819, 4025}
)
#: Numbers of missing tables, columns and rights there.
_SCHEMA_NUMBERS = frozenset({1044, 1049, 1054, 1142, 1143, 1146})
_REFUSALS = (DataError, IntegrityError, ProgrammingError, NotSupportedError, DatabaseInternalError)


def is_refusal(error: Exception) -> bool:
    """Whether this error of a statement will come again with the same values. Where a server is
    away or busy, or a table is missing, another try may succeed."""
    if isinstance(error, BrokerUnavailable | MemoryError | TransactionManagementError):
        return False
    if not isinstance(error, DatabaseError):
        return True  # a driver's `ValueError`, `TypeError`, `OverflowError`, or a fault of ours
    state = sqlstate(error)
    if state:
        return state[:2] in _REFUSING
    number = error.args[0] if error.args else None
    if number in _REFUSING_NUMBERS:
        return True
    return isinstance(error, _REFUSALS) and number not in _SCHEMA_NUMBERS


#: Statements that were ended because they took too much: time, locks, memory, a large packet.
_CUT = frozenset({"53200", "55P03", "57014"})
_CUT_NUMBERS = frozenset({1153, 1205, 1317, 1969, 3024})


def is_cut(error: Exception) -> bool:
    """Whether a smaller statement may succeed at once where this one failed."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, DatabaseError):
        return False
    return sqlstate(error) in _CUT or bool(error.args and error.args[0] in _CUT_NUMBERS)


def is_from_server(error: BaseException) -> bool:
    """Whether a database server has said this: it is a SQLSTATE, or a number of MySQL or MariaDB
    that is none of their client's own (2000 to 2999), which tell that the connection is gone."""
    number = error.args[0] if error.args else None
    if isinstance(number, int):
        return number >= 1000 and not 2000 <= number < 3000
    return bool(sqlstate(error))


#: SQLSTATEs and numbers of missing tables and columns, and how SQLite's sentences begin or go on.
_MISSING, _MISSING_NUMBERS = frozenset({"42P01", "42703"}), frozenset({1054, 1146})
_MISSING_TEXTS = ("no such table", "no such column", "has no column named")


def told(error: BaseException) -> str:
    """The text of an error; of one about a missing table or column, with what to do about it."""
    number = error.args[0] if error.args else None
    text = str(error).strip()
    missing = sqlstate(error) in _MISSING or number in _MISSING_NUMBERS
    if missing or any(mark in text for mark in _MISSING_TEXTS):
        return f"a table or column is missing, so run manage.py migrate: {text}"
    return text


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error, or of its cause: Django's errors have the driver's as that."""
    for one in (error, error.__cause__):
        state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
        if isinstance(state, str):
            return state
    return ""
