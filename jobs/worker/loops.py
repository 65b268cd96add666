"""What happens when a thread fails that a worker can't do without."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from jobs import signals

log = logging.getLogger("jobs.worker")


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
