"""The beat process: one step, repeated with pauses."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from django.db import Error as DatabaseError
from django.db import connections, reset_queries

from jobs import broker
from jobs.beat.ticking import sweep, tick
from jobs.broker.base import SCHEDULES, Subscription
from jobs.exceptions import BrokerUnavailable
from jobs.ledger import publish
from jobs.ledger.refusals import told
from jobs.timing import clock

log = logging.getLogger("jobs.beat")


class Bell:
    """One thread waits for it; any thread, and an edited schedule, rings it."""

    #: Longest pause, in seconds, between two tries to subscribe.
    most_seconds = 10.0

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        self._news: Subscription | None = None
        self._entered = contextlib.ExitStack()
        self._again_at = 0.0
        self._failures = 0

    def ring(self) -> None:
        """End `wait`. May be called by a signal handler or a thread."""
        os.write(self._in, b".")

    def wait(self, seconds: float) -> None:
        """Until it rings, schedules are edited, or so many seconds have passed. Returns at once
        when it has just subscribed to edits."""
        if self._news is None and time.monotonic() >= self._again_at:
            try:
                self._news = self._entered.enter_context(broker.get().subscribe(SCHEDULES))
            except Exception as error:  # noqa: BLE001  whatever it is, beat can do without
                self._lose(error)
            else:
                if self._failures:
                    log.info("beat hears of edited schedules at once again")
                self._failures = 0
                return  # nobody heard of edits between the last look and now
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

    def _lose(self, error: Exception) -> None:
        self._entered.close()
        self._news = None
        if not self._failures:
            log.warning("beat sees edited schedules only when it looks, each second: %s", error)
        pause = clock.growing_pause(self._failures, 1.0, self.most_seconds)
        self._failures += 1
        self._again_at = time.monotonic() + pause


class Beat:
    """One beat process: `step` repeated until `stop`."""

    #: Longest pause, in seconds: how soon an edited schedule is seen while Redis is away.
    look_seconds = 1.0
    #: Shortest pause, in seconds, while another beat is at work on what is due.
    yield_seconds = 0.05
    #: Seconds between two relays of messages that were committed and never published.
    upkeep_seconds = 5.0
    #: Longest pause, in seconds, while the database is away.
    retry_seconds = 10.0

    def __init__(self, prepare: Callable[[], object] | None = None) -> None:
        """``prepare``: called once, as soon as the database is there."""
        self._prepare = prepare
        self._stopping = False
        self._bell = Bell()
        self._upkeep_at = 0.0
        self._sweep_at = 0.0
        #: Key of the schedule that the last sweep ended with.
        self._swept = 0
        self._failures = 0
        self._problems: dict[str, type[Exception]] = {}

    def run(self) -> None:
        """Tick until `stop`."""
        try:
            while not self._stopping:
                self._bell.wait(self.step())
        finally:
            self._bell.close()

    def stop(self) -> None:
        """End `run` after the present step. May be called by a signal handler or a thread."""
        if not self._stopping:
            # In this order: once `_stopping` is set, `run` may close the bell in another thread.
            self._bell.ring()
            self._stopping = True

    def stop_on_signals(self) -> None:
        """Let SIGINT and SIGTERM stop it; a second one ends the process at once. SIGHUP does
        nothing: a terminal that closes stops no service."""

        def on_signal(signum: int, _frame: object) -> None:
            if self._stopping:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            self.stop()

        signal.signal(signal.SIGHUP, lambda *_: None)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, on_signal)

    def step(self) -> float:
        """Send what is due and, now and then, relay what was left behind; gives the seconds until
        the next step."""
        # Close connections that are broken or too old. `CONN_MAX_AGE = 0` is meant for the end of a
        # request: with it, beat would connect anew each second, and be late by that.
        for connection in connections.all(initialized_only=True):
            if connection.errors_occurred or connection.settings_dict["CONN_MAX_AGE"]:
                connection.close_if_unusable_or_obsolete()
        reset_queries()  # with DEBUG on, Django keeps every statement
        ticked, due = self._attempt("send what is due", lambda: tick(clock.now()))
        if not ticked:
            pause = clock.growing_pause(self._failures, 0.5, self.retry_seconds)
            self._failures += 1
            return pause * random.uniform(0.5, 1.0)  # noqa: S311  several beats: not all at once
        self._failures = 0
        if time.monotonic() >= self._upkeep_at:
            self._upkeep_at = time.monotonic() + self.upkeep_seconds
            if self._prepare and self._attempt("synchronise schedules", self._prepare)[0]:
                self._prepare = None
            self._attempt("publish what was left behind", publish.relay)
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + self.look_seconds
            swept, after = self._attempt(
                "look for edited schedules", lambda: sweep(clock.now(), self._swept)
            )
            self._swept = after if swept else self._swept
        left = self.look_seconds if due is None else (due - clock.now()).total_seconds()
        return min(left if left > 0 else self.yield_seconds, self.look_seconds)

    def _attempt(self, what: str, job: Callable[[], Any]) -> tuple[bool, Any]:
        """Run a job that may fail, logging when it begins to fail and when it works again."""
        try:
            result = job()
        except Exception as error:
            if self._problems.get(what) is not type(error):
                self._problems[what] = type(error)
                # A server that is away says so in one line; anything else is a fault to be found.
                expected = isinstance(error, DatabaseError | BrokerUnavailable)
                log.error(
                    "beat could not %s and will keep trying: %s",
                    what,
                    told(error),
                    exc_info=None if expected else error,
                )
            return False, None
        if self._problems.pop(what, None):
            log.info("beat can %s again", what)
        return True, result
