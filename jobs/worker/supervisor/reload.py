"""The health file, and the watch over code in development."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from django.utils.autoreload import iter_all_python_module_files

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
