"""A place for one child process at a time, as its supervisor sees it."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from jobs.message import Killed
from jobs.worker.board import Board
from jobs.worker.options import Options

log = logging.getLogger("jobs.worker")

#: A child that ends sooner than this (seconds) after its start is started again more slowly.
_SOON = 5.0
_LONGEST_PAUSE = 30.0

_numbers = itertools.count(1)


class Left(NamedTuple):
    """A child that has ended, whose messages are to be given back."""

    consumer: str
    #: Deliveries (keys of the board) that were running when it died by itself.
    blamed: frozenset[int]
    #: Those for which it was killed.
    killed: dict[int, Killed]


class Slot:
    def __init__(self, number: int, options: Options) -> None:
        self.number = number
        self._options = options
        self.consumer = ""
        self.process: subprocess.Popen[bytes] | None = None
        #: When to start the next child (monotonic).
        self.start_at = 0.0
        self._board: Board | None = None
        self._started = 0.0
        #: Ends in a row that came too soon.
        self._failures = 0
        self._killed: dict[int, Killed] = {}
        #: Tasks that its former children have run.
        self._processed = 0

    @property
    def processed(self) -> int:
        """How many tasks its children have run, as far as they have said so."""
        own = self._board.processed if self.process and self._board else 0
        return self._processed + own

    def running(self) -> list[tuple[int, float]]:
        """The deliveries (keys of the board) that its child is in, and since when (monotonic)."""
        if self.process is None or self._board is None:
            return []
        return [(place.delivery, place.began) for place in self._board.running()]

    @property
    def ready(self) -> bool:
        """Whether its child claims messages."""
        return self.process is not None and self._board is not None and self._board.ready

    def start(self) -> None:
        # Never used twice: what a former child held must not look like this one's.
        token = f"{next(_numbers)}-{secrets.token_hex(8)}"
        self.consumer = f"{self._options.name}/{self.number}.{token}"
        self._started = time.monotonic()
        self._killed = {}
        board = self._board = Board.make(self._options.places)
        asked = [self.consumer, str(board.fd), self._options.dumps()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.worker", *asked],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdin=subprocess.PIPE,
            pass_fds=[board.fd],
            # Ctrl-C is for the supervisor alone.
            process_group=0,
        )

    def reap(self, *, stopping: bool) -> Left | None:
        """What a child that has ended leaves behind. ``stopping``: it was told to end."""
        if self.process is None or self.process.poll() is None:
            return None
        assert self._board is not None
        code = self.process.returncode
        if self.process.stdin:
            self.process.stdin.close()
        self.process = None
        running = frozenset(place.delivery for place in self._board.running())
        self._processed += self._board.processed
        self._board.close()
        crashed = code != 0 and not stopping and not self._killed
        if crashed:
            log.error("child %s ended: %s", self.consumer, _how(code))
        self._schedule(crashed and time.monotonic() - self._started < _SOON)
        return Left(self.consumer, running if crashed else frozenset(), self._killed)

    def _schedule(self, too_soon: bool) -> None:
        self._failures = self._failures + 1 if too_soon else 0
        pause = min(_LONGEST_PAUSE, 0.25 * 2**self._failures) if too_soon else 0.0
        self.start_at = time.monotonic() + pause

    def signal(self, signum: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(signum)

    def enforce_limits(self, now: float) -> None:
        """Kill the child if one of its tasks has had its time (``now``: monotonic)."""
        if self.process is None or self._board is None or self._killed:
            return
        over = {p.delivery: p.reason for p in self._board.running() if p.ends <= now}
        if over:
            log.error(
                "child %s is killed for %s of a task",
                self.consumer,
                " and ".join(sorted({reason.value for reason in over.values()})),
            )
            self._killed = over
            self.process.kill()

    def next_limit(self) -> float:
        """When the first of its tasks has had its time (monotonic)."""
        if self.process is None or self._board is None or self._killed:
            return float("inf")
        return min((p.ends for p in self._board.running()), default=float("inf"))


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
