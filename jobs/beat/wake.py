"""Edits of schedules are told to beat, whichever process they are made in."""

from __future__ import annotations

import logging
from typing import Any

from jobs import broker
from jobs.models.schedules import rules_changed

log = logging.getLogger("jobs.beat")

#: Of the broker's notifications.
TOPIC = "schedules"


def tell(**_: Any) -> None:
    """Wake every beat. Without a broker they see it at their next look."""
    try:
        with broker.get().briefly(insist=False):
            broker.get().notify(TOPIC)
    except Exception as error:  # noqa: BLE001  a commit has succeeded, and this is only a hint
        log.debug("beat is not told of edited schedules and will see them by itself: %s", error)


rules_changed.connect(tell, dispatch_uid="jobs.beat")
