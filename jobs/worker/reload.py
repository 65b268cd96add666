"""New code: noticed by itself in development, tried before a reload."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from django.utils.autoreload import iter_all_python_module_files


class Watch:
    """The modification times of every module imported, looked at once a second at most."""

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


def importable() -> str:
    """What goes wrong when a fresh process loads the project and its tasks; empty: nothing."""
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.stderr if done.returncode else ""
