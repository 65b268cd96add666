"""How a loop goes on while Redis or the database is away: pauses that grow, and one line in the
log when it goes and one when it is back. `jobs.ledger.refusals` says which errors mean that.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable

from django.db import Error as DatabaseError

from jobs import signals
from jobs.exceptions import BrokerUnavailable
from jobs.ledger.refusals import (
    is_cut,
    is_refusal,
    sqlstate,
)

__all__ = ["AWAY", "BROKER", "DATABASE", "Patience", "is_cut", "is_refusal", "sqlstate"]

log = logging.getLogger("jobs.worker")

#: The errors that may mean: wait, and try again. `is_refusal` tells those that don't.
AWAY = (BrokerUnavailable, DatabaseError)

BROKER, DATABASE = "broker", "database"


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


def vital(loop: Callable[[], None]) -> Callable[[], None]:
    """A thread's target that ends the process when it raises what it should never raise.

    The supervisor then gives back what the process held and starts another, which is better than
    a worker that looks healthy and claims or records nothing.
    """

    def guarded() -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001  it is logged there
            end(error)

    return guarded


def end(error: BaseException) -> None:
    """End the process for what should never be raised."""
    try:
        text = "a vital thread of the worker failed; the process ends"
        signals.log_error(log, text, error=error, level=logging.CRITICAL)
        logging.shutdown()
    finally:  # whatever the handlers of the project's log may raise
        os._exit(70)
