"""One of a worker's places for a child process, as the supervisor sees it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import signal
import threading
import time
from typing import NamedTuple

from jobs.message import Killed
from jobs.timing.clock import growing_pause
from jobs.worker.board import DUMP, Board
from jobs.worker.child import Options
from jobs.worker.supervisor.starting import Process, Starter, how

log = logging.getLogger("jobs.worker")

#: A child that dies within so many seconds of its start is restarted after a pause.
_SOON = 5.0
_LONGEST_PAUSE = 30.0
#: Seconds that a child may take to exit once its work is done: Python itself waits for ever for the
#: threads that tasks have left behind.
_LEAVING = 5.0

_numbers = itertools.count(1)


class Left(NamedTuple):
    """A child that has ended, and whose messages must be given back."""

    consumer: str
    #: Deliveries (keys of the board) that were running when the child died by itself.
    blamed: frozenset[int]
    #: Deliveries for which it was killed.
    killed: dict[int, Killed]
    #: How it ended, when it died by itself.
    crash: str = ""
    pid: int = 0


class Slot:
    def __init__(self, number: int, options: Options, starter: Starter) -> None:
        self.number = number
        self._options = options
        #: Of the options: those that the child was started with.
        self._queues: tuple[str, ...] = options.queues
        #: Held while a child is started, and while its queues change.
        self._lock = threading.Lock()
        self._starter = starter
        self.consumer = ""
        self.process: Process | None = None
        #: When to start the next child (monotonic).
        self.start_at = 0.0
        self._board: Board | None = None
        #: When its last child was started (monotonic).
        self.started = 0.0
        #: How many children in a row died soon after their start.
        self._failures = 0
        self._killed: dict[int, Killed] = {}
        #: Signals that this supervisor has sent to the child.
        self._sent: set[signal.Signals] = set()
        #: When a child that has finished its work is to have exited (monotonic).
        self._leaves = float("inf")
        #: How many tasks its earlier children have run, and how many of them failed for good.
        self._processed = 0
        self._failed = 0
        #: Whether its children are to claim nothing.
        self._quiet = False
        #: Why the last child ended before it claimed anything; "" if it didn't.
        self.failed = ""
        #: Names of the tasks that the child knows, once it was asked.
        self._tasks: list[str] | None = None
        #: Whether there is to be no other child.
        self.retired = False
        #: Whether the last child has done all its work, and didn't end only to be replaced.
        self.done = False

    @property
    def processed(self) -> int:
        """How many tasks its children have run, as far as they have reported that."""
        own = self._board.processed if self.process and self._board else 0
        return self._processed + own

    @property
    def failures(self) -> int:
        """How many of them failed for good."""
        own = self._board.failed if self.process and self._board else 0
        return self._failed + own

    def set_quiet(self, quiet: bool) -> None:
        """Have the child, and those that follow it, claim nothing, or claim again."""
        self._quiet = quiet
        if self.process and self._board:
            self._board.quiet = quiet

    def use(self, options: Options) -> None:
        """Have the child, and those that follow it, claim from the queues of these options. Other
        threads may ask for it."""
        with self._lock:
            self._options = options
            if self.process and self._board:
                added = [one for one in options.queues if one not in self._queues]
                given_up = [one for one in self._queues if one not in options.queues]
                self._board.change_queues(added, given_up)

    def note_loss(self) -> None:
        """Tell the child that the broker may have lost what it holds."""
        if self.process and self._board:
            self._board.note_loss()

    def tasks(self) -> list[str] | None:
        """Names of the tasks that its child knows; None while there is none that claims."""
        if self._tasks is None and self.ready and self._board:
            self._tasks = self._board.tasks()
        return self._tasks if self.ready else None

    def ask_for_stacks(self) -> bool:
        """Have the child write what its threads are doing. Whether there is one that can."""
        # One that is still starting, or is on its way out, has no handler: the signal would end it.
        if not self.ready or self._board is None or self._board.over or self.process is None:
            return False
        self.tasks()  # the stacks take their place on the board
        self._board.take_stacks()
        self.process.send_signal(DUMP)
        return True

    def take_stacks(self) -> str:
        """What the child has written, when it was asked to."""
        return self._board.take_stacks() if self.process and self._board else ""

    def running(self) -> list[tuple[int, float]]:
        """The deliveries (keys of the board) that its child runs, and since when (monotonic)."""
        if self.process is None or self._board is None:
            return []
        try:
            return [(place.delivery, place.began) for place in self._board.running()]
        except ValueError:  # the child has ended, and the main thread has just closed its board
            return []

    @property
    def ready(self) -> bool:
        """Whether its child claims messages."""
        return self.process is not None and self._board is not None and self._board.ready

    def start(self) -> None:
        """Start a child. If this machine lacks the means, it is tried again later."""
        # Never used twice, so that what an earlier child held doesn't look like this one's.
        token = f"{next(_numbers)}-{secrets.token_hex(8)}"
        self.consumer = f"{self._options.name}/{self.number}.{token}"
        self.started = time.monotonic()
        self._killed, self._sent, self._leaves = {}, set(), float("inf")
        self.failed, self.done, self._tasks = "", False, None
        try:
            with self._lock, contextlib.ExitStack() as undo:
                self._queues = self._options.queues
                board = self._board = Board.make(self._options.places)
                undo.callback(board.close)
                board.quiet = self._quiet
                # The child ends when this process does: see `jobs.worker.__main__`.
                read, self._tie = os.pipe()
                undo.callback(os.close, self._tie)
                try:
                    self.process = self._starter.start(
                        self.consumer, read, board.fd, self._options.dumps()
                    )
                finally:
                    os.close(read)
                undo.pop_all()
        except OSError as error:
            # No memory, process or file descriptor left.
            log.error("child %s can't be started: %s", self.consumer, error)
            self.failed = str(error)
            self._schedule(too_soon=True)

    def reap(self) -> Left | None:
        """What the child leaves behind; None while there is one that hasn't ended."""
        if self.process is None:
            return None
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            if os.waitid(os.P_PID, self.process.pid, options) is None:
                return None
            # What its tasks have started ends as well. Before the child is waited for: until then
            # no other process can have its number.
            self._kill_group(self.process)
        except ChildProcessError:
            pass  # somebody else has waited for it
        assert self._board is not None
        pid, code = self.process.pid, self.process.wait()
        os.close(self._tie)
        with self._lock:
            self.process = None
        board = self._board
        running = frozenset(place.delivery for place in board.running())
        self._processed += board.processed
        self._failed += board.failed
        told = signal.SIGKILL in self._sent or code in {-signum for signum in self._sent}
        self.done = board.over and not board.spent
        crashed = not (board.over or told or self._killed)
        if crashed:
            log.error("child %s ended: %s", self.consumer, how(code))
            self.failed = "" if board.ready else how(code)
        elif code != 0 and not told and not self._killed:
            log.warning("child %s has done its work, and left badly: %s", self.consumer, how(code))
        board.close()
        self._schedule(crashed and time.monotonic() - self.started < _SOON)
        blamed = running if crashed else frozenset()
        return Left(self.consumer, blamed, self._killed, how(code) if crashed else "", pid)

    @staticmethod
    def _kill_group(process: Process) -> None:
        """Kill the child and all that its tasks have started, but for other process groups."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def _schedule(self, too_soon: bool) -> None:
        pause = growing_pause(self._failures, 0.5, _LONGEST_PAUSE) if too_soon else 0.0
        self._failures = self._failures + 1 if too_soon else 0
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
        """Kill the child if a task exceeds its time limit, or if its work is done and it doesn't
        exit (``now``: monotonic)."""
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
        """When the first of its tasks reaches its time limit (monotonic)."""
        if self.process is None or self._board is None or self._killed:
            return float("inf")
        return min((p.ends for p in self._board.running()), default=float("inf"))
