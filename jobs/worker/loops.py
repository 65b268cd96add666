"""How a thread's loop goes on while Redis or the database is away, and what happens when it fails
altogether.

`jobs.ledger.refusals` tells which errors of the database mean an outage.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable

from django.db import Error as DatabaseError

from jobs import signals
from jobs.exceptions import BrokerUnavailable
from jobs.ledger.refusals import told
from jobs.timing.clock import growing_pause

log = logging.getLogger("jobs.worker")

#: The errors that may mean an outage: wait, and try again.
AWAY = (BrokerUnavailable, DatabaseError)

BROKER, DATABASE = "broker", "database"


#: Seconds to wait after an error that nobody expected.
_PAUSE = 5.0


class Backoff:
    """The back-off of one loop: it pauses longer after each failed try, and logs one line when an
    outage begins and one when it has ended. It does the same for errors that nobody expected."""

    def __init__(
        self,
        log: logging.Logger,
        away: str,
        back: str,
        *,
        failing: str = "",
        working: str = "",
        shortest: float = 0.1,
        longest: float = 1.0,
    ) -> None:
        """``away``, ``back``: what to log when an outage begins and ends; ``{what}`` in them
        becomes "broker" or "database". ``failing``, ``working``: what to log with an unexpected
        error, and when there are no more. ``shortest``, ``longest``: the first pause and the
        longest one, in seconds."""
        self._log = log
        self._away = away
        self._back = back
        self._failing = failing
        self._working = working
        self._shortest = shortest
        self._longest = longest
        self._tries = 0
        #: What is away, `BROKER` or `DATABASE`; "" when nothing is.
        self.missing = ""
        #: The kind of the last unexpected error, until a try succeeds.
        self._problem: type[Exception] | None = None

    def away(self, error: Exception) -> float:
        """Note that a try failed with this error; return the seconds to wait until the next."""
        what = BROKER if isinstance(error, BrokerUnavailable) else DATABASE
        if what != self.missing:
            self._end_outage()
            self.missing = what
            self._log.warning("%s: %s", self._away.replace("{what}", what), told(error))
        pause = growing_pause(self._tries, self._shortest, self._longest)
        self._tries += 1
        # At random, so that many processes don't come back all at once.
        return pause * random.uniform(0.5, 1)  # noqa: S311

    def failed(self, error: Exception) -> float:
        """Note an unexpected error, to be called while it is handled; return the seconds to wait.
        It is logged with its traceback, unless the last one was of the same kind."""
        if self._problem is not type(error):
            self._problem = type(error)
            self._log.exception(self._failing)
        return _PAUSE

    def back(self) -> None:
        """Note that a try succeeded; this does nothing unless one had failed before."""
        if self._problem:
            self._problem = None
            self._log.warning(self._working)
        self._end_outage()

    def _end_outage(self) -> None:
        if self.missing:
            back = self._back.replace("{what}", self.missing)
            self._log.warning("%s (after %d tries)", back, self._tries)
            self.missing, self._tries = "", 0


def vital(loop: Callable[[], None]) -> Callable[[], None]:
    """A thread's target that ends the process if the loop raises anything.

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
    """Log an error that should never be raised, and end the process."""
    try:
        text = "a vital thread of the worker failed; the process ends"
        signals.log_error(log, text, error=error, level=logging.CRITICAL)
        logging.shutdown()
    finally:  # whatever the handlers of the project's log may raise
        os._exit(70)
