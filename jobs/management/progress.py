"""A line on a terminal's standard error that says how far a command is; nothing elsewhere."""

from __future__ import annotations

import time

from django.core.management.base import OutputWrapper

#: Seconds between two lines.
TELL = 0.2


class Progress:
    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        self._shown = out.isatty()
        self._next = time.monotonic() + TELL
        self._width = 0

    def tell(self, line: str) -> None:
        """Show this line, if the last one has stood for a moment."""
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + TELL
            self._write(line)

    def clear(self) -> None:
        if self._width:
            self._write("")

    def _write(self, line: str) -> None:
        text = "\r" + line.ljust(self._width) + ("" if line else "\r")
        self._out.write(text, style_func=str, ending="")
        self._out.flush()
        self._width = len(line)
