"""prctl(2): what only Linux lets a process say about itself."""

from __future__ import annotations

import ctypes
import os

# From <sys/prctl.h>.
SET_PDEATHSIG = 1
SET_NAME = 15
SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int | bytes) -> None:
    """Raises `OSError` where the system can't do this."""
    try:
        function = ctypes.CDLL(None, use_errno=True).prctl
    except AttributeError:
        raise OSError("this system has no prctl") from None
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if function(option, argument, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
