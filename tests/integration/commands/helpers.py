"""Run commands in this process."""

from __future__ import annotations

import io

from django.core.management import CommandError, call_command


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(name: str, *args: str, err: io.StringIO | None = None) -> str:
    """What a command printed."""
    out = io.StringIO()
    call_command(name, *args, stdout=out, stderr=err or io.StringIO(), no_color=True)
    return out.getvalue()


def fail(name: str, *args: str) -> tuple[int, str, str]:
    """Exit status of a command that ends badly, what it printed, and what it says is wrong."""
    out = io.StringIO()
    try:
        call_command(name, *args, stdout=out, no_color=True)
    except CommandError as error:
        return error.returncode, out.getvalue(), str(error)
    raise AssertionError(f"{name} ended well:\n{out.getvalue()}")
