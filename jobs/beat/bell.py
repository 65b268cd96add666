"""What ends beat's pause: its own bell, and the news that schedules were edited."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time

from jobs import broker
from jobs.beat.wake import TOPIC
from jobs.broker.base import Subscription

log = logging.getLogger("jobs.beat")


class Bell:
    """To be waited for by one thread, and rung by any."""

    #: Longest pause, in seconds, between two tries to subscribe.
    most_seconds = 10.0

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        self._news: Subscription | None = None
        self._entered = contextlib.ExitStack()
        self._again_at = 0.0
        self._pause = 0.0

    def ring(self) -> None:
        """End `wait`. May be called by a signal handler or a thread."""
        os.write(self._in, b".")

    def wait(self, seconds: float) -> None:
        """Until it rings, schedules are edited, or so many seconds have passed. Not at all when it
        could not hear of edits before."""
        if self._subscribe():
            return  # what was edited since beat looked was told to nobody
        waited = [self._out] if self._news is None else [self._out, self._news.fileno()]
        if not select.select(waited, [], [], seconds)[0] or self._news is None:
            return
        try:
            while self._news(0):
                pass
        except Exception as error:  # noqa: BLE001  as below
            self._lose(error)

    def close(self) -> None:
        self._entered.close()
        os.close(self._out)
        os.close(self._in)

    def _subscribe(self) -> bool:
        """Whether it hears of edits from now on, and did not before."""
        if self._news is not None or time.monotonic() < self._again_at:
            return False
        try:
            self._news = self._entered.enter_context(broker.get().subscribe(TOPIC))
        except Exception as error:  # noqa: BLE001  whatever it is, beat can do without
            self._lose(error)
            return False
        if self._pause:
            log.info("beat hears of edited schedules at once again")
        self._pause = 0.0
        return True

    def _lose(self, error: Exception) -> None:
        self._entered.close()
        self._news = None
        if not self._pause:
            log.warning("beat sees edited schedules only when it looks, each second: %s", error)
        self._pause = min(max(1.0, 2 * self._pause), self.most_seconds)
        self._again_at = time.monotonic() + self._pause
