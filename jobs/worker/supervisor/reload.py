"""The health file, and new code: watched in development, tried before a reload."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from pathlib import Path

from django.utils.autoreload import iter_all_python_module_files

from jobs.worker.board import scratch
from jobs.worker.supervisor.slot import python

log = logging.getLogger("jobs.worker")


class Health:
    """The health file, by whose age a probe sees whether the worker is well."""

    def __init__(self, path: str) -> None:
        """``path``: "" to write none."""
        self._file = Path(path) if path else None
        self._failed = False

    def touch(self) -> None:
        if self._file is None:
            return
        try:
            self._file.touch()
        except OSError as error:
            # The worker itself is well. The probe will find the file too old.
            if not self._failed:
                log.warning("the health file can't be written: %s", error)
            self._failed = True
        else:
            self._failed = False

    def remove(self) -> None:
        if self._file is None:
            return
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the health file can't be removed: %s", error)


class Watch:
    """Watches the modification times of all imported modules, once a second at most."""

    def __init__(self) -> None:
        self._next = 0.0
        self._seen = _times()

    def changed(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 1.0
        before, self._seen = self._seen, _times()
        return any(before.get(path, at) != at for path, at in self._seen.items())


def _times() -> dict[Path, float]:
    times = {}
    for path in iter_all_python_module_files():
        try:
            times[path] = path.stat().st_mtime
        except OSError:
            continue  # deleted between two looks
    return times


class Trial:
    """A fresh process that loads the project and its tasks."""

    #: Seconds that it may take.
    longest = 300.0

    def __init__(self) -> None:
        self._said = scratch()
        self._ends = time.monotonic() + self.longest
        try:
            self._process = subprocess.Popen(
                python("import django; django.setup()"),
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError:
            os.close(self._said)
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def problem(self) -> str | None:
        """What went wrong; "": nothing; None: it isn't over yet."""
        code = self._process.poll()
        if code is None and time.monotonic() < self._ends:
            return None
        said = os.pread(self._said, 20_000, max(0, os.fstat(self._said).st_size - 20_000))
        self.end()
        if code is None:
            return f"It takes longer than {self.longest:g} s."
        return said.decode(errors="replace") or f"It ended: {code}." if code else ""

    def end(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._said)
