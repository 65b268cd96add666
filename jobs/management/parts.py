"""Commands of ``manage.py`` that are run together in one terminal, for development."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: How long, in seconds, parts may take to end; the worker lets running tasks finish.
STOP_SECONDS = 40.0
#: Seconds between two looks at whether a part has ended.
LOOK_SECONDS = 0.1
_COLOURS = {"web": 36, "worker": 32, "beat": 35, "broker": 33}
_terminal = threading.Lock()


class Part:
    """One `manage.py` process in a process group of its own. A line of its output is shown behind
    the part's name."""

    def __init__(self, name: str, command: Sequence[str], cwd: Path | None = None) -> None:
        """``command``: the whole command line."""
        self.name = name
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "DJANGO_RUNSERVER_HIDE_WARNING": "true"},
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def signal(self, signum: signal.Signals) -> None:
        """To the whole group, as a terminal does on Ctrl-C."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signum)

    def finish(self) -> None:
        """Leave nothing of it behind: neither a process nor an unread line."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join(timeout=2)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _show(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            say(line.rstrip("\n"), self.name)


def say(line: str, name: str = "") -> None:
    label = f"{name:<6} |"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        label = f"\033[{_COLOURS.get(name, 1)}m{label}\033[0m"
    with _terminal:
        sys.stdout.write(f"{label} {line}\n")
        sys.stdout.flush()


def note_interrupts() -> list[int]:
    """From now on, the signals that ask this process to end: they are added to this list."""
    interrupts: list[int] = []
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda received, _frame: interrupts.append(received))
    return interrupts


def describe(status: int) -> str:
    """How a process has ended."""
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def end(parts: Sequence[Part], hurried: Callable[[], bool]) -> None:
    """End the parts, and wait for that; kill those that take too long, or all once ``hurried``."""
    for part in parts:
        part.signal(signal.SIGTERM)  # SIGINT is a traceback for what is still starting
    deadline = time.monotonic() + STOP_SECONDS
    while not all(part.ended() for part in parts):
        if hurried() or time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    for part in parts:
        if not part.ended():
            say(f"{part.name} did not end in time and was killed.")
        part.finish()
