"""What `runworker` and `runbeat`, which run for long, need of their process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import connections

from jobs import conf
from jobs.exceptions import ConfigurationError

_COMMANDS = ("runworker", "runbeat")


def prepare() -> None:
    """Make the process of one of these commands ready; called as soon as this app is imported.

    A SIGHUP that comes while the project loads would end the process. And if a standard stream is
    closed, the next socket or file that is opened would get its number, and all that is printed.
    """
    if not (sys.argv[1:2] and sys.argv[1] in _COMMANDS):
        return
    if sys.argv[1] == "runworker":
        # Its children may be forks of this process, in which the project is loaded once.
        from jobs.worker import leftovers
        from jobs.worker.run import isolation

        leftovers.note_start()
        isolation.note_changes()
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)
    # Python has None for those that were closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, ignore)


def ignore(signum: int, frame: FrameType | None) -> None:
    """A handler that does nothing. Unlike SIG_IGN, other programs don't inherit it."""


def to_nowhere(fd: int) -> None:
    """Discard whatever is written there from now on. Python writes the rest of its buffer when it
    ends, which would fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


def say(out: OutputWrapper, text: str) -> None:
    """Write a line, and go on without an error when nobody reads it any more."""
    try:
        out.write(text)
        out.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            to_nowhere(1)


#: Alias → the name of its database as the settings have it.
_databases: dict[str, str] = {}


def note_databases() -> None:
    """Note which databases the settings name, before a test runner puts others in their place."""
    _databases.update(
        {alias: str(connections[alias].settings_dict["NAME"]) for alias in connections}
    )


def on_test_database() -> bool:
    """Whether this process works on another database than its settings name, as tests do. A process
    that it starts would not."""
    return any(
        str(connections[alias].settings_dict["NAME"]) != name for alias, name in _databases.items()
    )


def refuse_memory(command: BaseCommand | None = None) -> None:
    """Raise `CommandError` for the broker in memory, which no other process sees: what is published
    there counts as sent, and nobody runs it.

    ``command``: raise only if it was called from a command line. A test may call it, since the
    broker is in the test's own process.
    """
    if command is not None and not getattr(command, "_called_from_command_line", False):
        return
    try:
        url = conf.get().broker_url
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
    if url == "memory://":
        raise CommandError(
            "JOBS['BROKER_URL'] is memory://, a broker inside one process, for tests. Set it to "
            "the address of a Redis or Valkey server, such as redis://localhost:6379/0, which web "
            "processes, workers and beat share."
        )
