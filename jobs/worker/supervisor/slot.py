"""A place for one child process at a time, as its supervisor sees it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from jobs.message import Killed
from jobs.worker.board import Board
from jobs.worker.child import Options

log = logging.getLogger("jobs.worker")

#: A child that ends sooner than this (seconds) after its start is started again more slowly.
_SOON = 5.0
_LONGEST_PAUSE = 30.0
#: How long, in seconds, a child may take to leave when it has done all it had to do: threads and
#: processes that tasks have left behind are waited for by Python itself, for ever if need be.
_LEAVING = 5.0

#: What a fresh interpreter is told first: where to look for code. Not by PYTHONPATH, which all that
#: tasks start would inherit.
_START = "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); "

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
        #: The signals that its child was sent by this supervisor.
        self._sent: set[signal.Signals] = set()
        #: Until when the child, which has done all, may take to leave (monotonic).
        self._leaves = float("inf")
        #: Tasks that its former children have run.
        self._processed = 0
        #: Its last child ended before it claimed anything; why (empty: it didn't).
        self.failed = ""
        #: Its last child has done all that it had to do.
        self.done = False

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
        """Start a child. When this machine has not the means, it is tried again later."""
        # Never used twice: what a former child held must not look like this one's.
        token = f"{next(_numbers)}-{secrets.token_hex(8)}"
        self.consumer = f"{self._options.name}/{self.number}.{token}"
        self._started = time.monotonic()
        self._killed, self._sent, self._leaves = {}, set(), float("inf")
        self.failed, self.done = "", False
        board = None
        try:
            board = self._board = Board.make(self._options.places)
            self.process, self._tie = self._spawn(board)
        except OSError as error:
            if board:
                board.close()
            # No memory, process or file descriptor left.
            log.error("child %s can't be started: %s", self.consumer, error)
            self.failed = str(error)
            self._schedule(too_soon=True)

    def _spawn(self, board: Board) -> tuple[subprocess.Popen[bytes], int]:
        """The process, and what it is tied to this one by: see `jobs.worker.__main__`."""
        read, write = os.pipe()
        try:
            asked = [self.consumer, str(read), str(board.fd), self._options.dumps()]
            process = subprocess.Popen(
                [*python("from jobs.worker.__main__ import main; main()"), *asked],
                stdin=subprocess.DEVNULL,
                pass_fds=[read, board.fd],
                # Ctrl-C is for the supervisor alone. And what tasks start ends with the child.
                process_group=0,
            )
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        return process, write

    def reap(self) -> Left | None:
        """What a child that has ended leaves behind."""
        if self.process is None or not self._ended(self.process):
            return None
        assert self._board is not None
        code = self.process.wait()
        os.close(self._tie)
        self.process = None
        board = self._board
        running = frozenset(place.delivery for place in board.running())
        self._processed += board.processed
        told = signal.SIGKILL in self._sent or code in {-signum for signum in self._sent}
        self.done = board.over
        crashed = not (self.done or told or self._killed)
        if crashed:
            log.error("child %s ended: %s", self.consumer, _how(code))
            self.failed = "" if board.ready else _how(code)
        elif code != 0 and not told and not self._killed:
            log.warning("child %s has done its work, and left badly: %s", self.consumer, _how(code))
        board.close()
        self._schedule(crashed and time.monotonic() - self._started < _SOON)
        return Left(self.consumer, running if crashed else frozenset(), self._killed)

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether the child has ended, and with it what its tasks have started."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            if os.waitid(os.P_PID, process.pid, how) is None:
                return False
        except ChildProcessError:
            return True  # somebody else has waited for it
        # Before it is waited for: its number can't be another's yet.
        self._kill_group(process)
        return True

    @staticmethod
    def _kill_group(process: subprocess.Popen[bytes]) -> None:
        """The child, and what its tasks have started and given no group of its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def _schedule(self, too_soon: bool) -> None:
        self._failures = self._failures + 1 if too_soon else 0
        pause = min(_LONGEST_PAUSE, 0.25 * 2**self._failures) if too_soon else 0.0
        self.start_at = time.monotonic() + pause

    def signal(self, signum: signal.Signals) -> None:
        if self.process is None:
            return
        self._sent.add(signum)
        if signum == signal.SIGKILL:
            self._kill_group(self.process)
        else:
            self.process.send_signal(signum)

    def enforce_limits(self, now: float) -> None:
        """Kill the child if one of its tasks has had its time, or if it has done all and doesn't
        leave (``now``: monotonic)."""
        if self.process is None or self._board is None or self._killed:
            return
        if self._board.over:
            self._leaves = min(self._leaves, now + _LEAVING)
            if self._leaves <= now:
                log.warning(
                    "child %s has done its work and doesn't leave, since a task has left a thread "
                    "or a process behind; it is killed",
                    self.consumer,
                )
                self.signal(signal.SIGKILL)
            return
        over = {p.delivery: p.reason for p in self._board.running() if p.ends <= now}
        if over:
            log.error(
                "child %s is killed for %s of a task",
                self.consumer,
                " and ".join(sorted({reason.value for reason in over.values()})),
            )
            self._killed = over
            self._kill_group(self.process)

    def next_limit(self) -> float:
        """When the first of its tasks has had its time (monotonic)."""
        if self.process is None or self._board is None or self._killed:
            return float("inf")
        return min((p.ends for p in self._board.running()), default=float("inf"))


def python(code: str) -> list[str]:
    """The command that runs this in a fresh interpreter like this one, with the same code to
    import."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-c", _START + code, os.pathsep.join(_path())]


def _path() -> list[str]:
    try:
        here = [str(Path.cwd())]
    except OSError:  # the folder was deleted
        here = []
    return [place for one in sys.path for place in ([one] if one else here)]


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
