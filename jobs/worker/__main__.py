"""A child process of a worker, as its supervisor starts it (`jobs.worker.supervisor.starting`): a
fork of the fork server (`jobs.worker.forkserver`), or where there is none, a fresh interpreter.

Processes that tasks start get what ``runworker`` was started with: nothing that connects supervisor
and child is in the environment, on standard input, or inherited.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib.util
import io
import os
import signal
import sys
import threading
from typing import Any

import django

from jobs.worker.board import DUMP
from jobs.worker.prctl import SET_PDEATHSIG, prctl
from jobs.worker.run import isolation


def main() -> None:
    """A child that is a fresh interpreter."""
    consumer, tie, board, asked = sys.argv[1:]
    for fd in (int(tie), int(board)):
        os.set_inheritable(fd, False)
    settle(int(tie), int(board))
    isolation.note_changes()
    django.setup()
    work(consumer, int(board), asked)


def settle(tie: int, board: int) -> None:
    """Make this process a child: how it takes signals, ends and prints, and what it says of itself
    to processes that tasks start."""
    # The supervisor decides when to stop. A child has a process group of its own, so neither Ctrl-C
    # nor the end of the terminal reaches it, but a signal to a whole service does. Not SIG_IGN:
    # programs that tasks start would inherit that.
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: None)
    # kill -QUIT: what is every thread doing?
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    # The same for the supervisor, which reads it behind the board. Python's own handler is what a
    # task that has changed it leaves behind: the signal must never end the process.
    signal.signal(DUMP, lambda *_: None)
    os.lseek(board, 0, os.SEEK_END)
    faulthandler.register(DUMP, file=board, all_threads=True)
    die_with_parent(tie)
    print_regardless()
    # `multiprocessing` has a new process import this module before anything else.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("jobs.worker.spawned")


def work(consumer: str, board: int, asked: str) -> None:
    """Run tasks, in a process that has loaded the project. ``asked``: `Options` as text."""
    # Only now can modules be imported that import models.
    from jobs.running import request
    from jobs.worker import forking
    from jobs.worker.board import Board
    from jobs.worker.child import Child, Options

    request.in_worker = True
    options = Options.loads(asked)
    child = Child(consumer, options, Board(board, options.places))
    forking.install(child)
    child.run()


def die_with_parent(tie: int) -> None:
    """End when the supervisor does, with everything that tasks have started in this process group:
    nobody would renew this process's lease any more.

    The supervisor holds the other end of this pipe, which closes when it dies, however it dies.
    On Linux the kernel itself then kills the group: a task that holds the interpreter lock would
    keep a thread from noticing.
    """
    if sys.platform == "linux":
        try:
            fcntl.fcntl(tie, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(tie, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(tie, fcntl.F_GETFL)
            fcntl.fcntl(tie, fcntl.F_SETFL, flags | os.O_ASYNC)
        except OSError:
            # A kernel that can't do this for a group. Only then: prctl kills this process alone, as
            # soon as the supervisor's first thread ends, and nothing would be left to kill the
            # group when the last one closes the pipe.
            with contextlib.suppress(OSError):
                prctl(SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(tie, 1):
                pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="jobs-parent", daemon=True).start()


class _Lasting(io.FileIO):
    """A raw stream that drops what can't be written any more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            return memoryview(data).nbytes


class _NeverClosed(io.TextIOWrapper):
    """A stream that stays open when a task closes it: the next one prints, too."""

    def close(self) -> None:
        self.flush()


def print_regardless() -> None:
    """Let no task fail because it prints while the terminal is closed, the pipe's reader has ended,
    the log's disk is full, or another task has closed the stream."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if isinstance(before, io.TextIOWrapper):
            raw = _Lasting(fd, "w", closefd=False)
            # With -u nothing is buffered.
            binary: Any = raw if before.write_through else io.BufferedWriter(raw)
            options: Any = {
                "encoding": before.encoding,
                "errors": before.errors,
                "line_buffering": before.line_buffering,
                "write_through": before.write_through,
            }
            setattr(sys, name, _NeverClosed(binary, **options))
            # In a fork, handlers of the log have the former stream already.
            before.__init__(binary, **options)  # type: ignore[misc]


if __name__ == "__main__":
    main()
