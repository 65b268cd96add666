"""Tell beat of edited schedules, from whichever process they are edited in."""

from __future__ import annotations

import logging
from typing import Any

from jobs import broker
from jobs.broker.base import SCHEDULES
from jobs.models.schedules import rules_changed

log = logging.getLogger("jobs.beat")


def tell(**_: Any) -> None:
    """Wake every beat. Without a broker, each sees the edit at its next step."""
    try:
        with broker.get().briefly(insist=False):
            broker.get().notify(SCHEDULES)
    except Exception as error:  # noqa: BLE001  a commit has succeeded, and this is only a hint
        log.debug("beat is not told of edited schedules and will see them by itself: %s", error)


rules_changed.connect(tell, dispatch_uid="jobs.beat")
