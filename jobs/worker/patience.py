"""How a loop goes on while Redis or the database is away: pauses that grow, and one line in the
log when it goes and one when it is back. And which errors mean that at all: what the database
refuses, it will refuse again.
"""

from __future__ import annotations

import logging
import random

from django.db import DataError, IntegrityError, NotSupportedError, ProgrammingError
from django.db import Error as DatabaseError
from django.db import InternalError as DatabaseInternalError
from django.db.transaction import TransactionManagementError

from jobs.exceptions import BrokerUnavailable

log = logging.getLogger("jobs.worker")

#: The errors that may mean: wait, and try again. `is_refusal` tells those that don't.
AWAY = (BrokerUnavailable, DatabaseError)

BROKER, DATABASE = "broker", "database"

#: Classes of SQLSTATE by which a database refuses values: too many or too few, data, constraints,
#: what it doesn't support, a check option of a view, limits of its own, a trigger's RAISE. Not
#: class 42 (a table, a column or a right is missing): that is no fault of the values, and ends
#: with the migration or the GRANT that is due.
_REFUSING = frozenset({"0A", "21", "22", "23", "44", "54", "P0"})
#: The same as numbers of MySQL and MariaDB. Their drivers disagree about the classes of these.
_REFUSING_NUMBERS = frozenset(
    {1048, 1062, 1264, 1265, 1267, 1271, 1292, 1300, 1366, 1406, 1690, 3140, 3819, 4025}
)
#: Numbers of missing tables, columns and rights there.
_SCHEMA_NUMBERS = frozenset({1044, 1049, 1054, 1142, 1143, 1146})
_REFUSALS = (DataError, IntegrityError, ProgrammingError, NotSupportedError, DatabaseInternalError)


def is_refusal(error: Exception) -> bool:
    """Whether this error of a statement will come again with the same values. Not so where a server
    is away or busy, or a table is missing: then another try may succeed."""
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


#: A statement that was ended for what it took: time, a lock, memory, the size of a packet.
_CUT = frozenset({"53200", "55P03", "57014"})
_CUT_NUMBERS = frozenset({1153, 1205, 1317, 1969, 3024})


def is_cut(error: Exception) -> bool:
    """Whether a smaller statement may succeed at once where this one did not."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, DatabaseError):
        return False
    return sqlstate(error) in _CUT or bool(error.args and error.args[0] in _CUT_NUMBERS)


def sqlstate(error: BaseException) -> str:
    """Django's errors have the driver's as their cause."""
    for one in (error, error.__cause__):
        state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
        if isinstance(state, str):
            return state
    return ""


class Patience:
    """One loop's patience with what it can't reach."""

    def __init__(self, away: str, back: str, *, longest: float = 1.0) -> None:
        """``away``, ``back``: what to log then; ``{what}`` in them is the broker or the database.
        ``longest``: of the pauses, in seconds."""
        self._away = away
        self._back = back
        self._longest = longest
        self._tries = 0
        #: What is away; "" when nothing is.
        self.missing = ""

    def away(self, error: Exception) -> float:
        """Note a failed try, by one of the errors in `AWAY`. Seconds to wait until the next."""
        what = BROKER if isinstance(error, BrokerUnavailable) else DATABASE
        if what != self.missing:
            self.back()
            self.missing = what
            log.warning("%s: %s", self._away.replace("{what}", what), error)
        self._tries += 1
        # The exponent has a limit of its own: an outage of hours is thousands of tries.
        pause = min(self._longest, 0.05 * 2.0 ** min(self._tries, 10))
        # By chance, so that many processes don't come back all at once.
        return pause * random.uniform(0.5, 1)  # noqa: S311

    def back(self) -> None:
        """Note that what was away has answered; nothing happens when nothing was."""
        if self.missing:
            said = self._back.replace("{what}", self.missing)
            log.warning("%s (after %d tries)", said, self._tries)
            self.missing, self._tries = "", 0
