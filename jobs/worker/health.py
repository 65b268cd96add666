"""A file whose age tells probes whether a worker is well."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("jobs.worker")


class Health:
    def __init__(self, path: str) -> None:
        """``path``: empty, and nothing is written."""
        self._file = Path(path) if path else None
        self._failed = False

    def touch(self) -> None:
        if self._file is None:
            return
        try:
            self._file.touch()
        except OSError as error:
            # The worker is well; it is for the probe to find the file too old.
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
