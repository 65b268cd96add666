"""What importing the project has left running or open in this process.

A fork would copy half of it: a thread is missing in the copy, while the locks that it held stay
taken, and two processes would read from one socket. So the fork server forks only while `find`
returns "". This module is imported before any of the project's code, and needs only /proc.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

_SELF = Path("/proc/self")

#: Descriptors that the process was started with besides its standard streams → device and inode.
_given: dict[int, tuple[int, int]] = {}
_noted = False

#: Character devices that any number of processes may read and write at once.
_SHARED_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def note_start() -> None:
    """Note which descriptors the process was given. What Python opens itself closes at exec, and
    what came through an exec doesn't."""
    global _noted
    if not _SELF.is_dir():
        return
    _noted = True
    for fd, status in _opened():
        if os.get_inheritable(fd):
            _given[fd] = status.st_dev, status.st_ino


def noted() -> bool:
    """Whether `note_start` could tell."""
    return _noted


def close_given() -> None:
    """Close what the process was given besides its standard streams."""
    for fd, status in list(_opened()):
        if _given.get(fd) == (status.st_dev, status.st_ino):
            os.close(fd)
    _given.clear()


def find(*own: int) -> str:
    """What runs or is open in this process that a fork must not copy, in words; "" if nothing.

    ``own``: descriptors of ours.
    """
    return _thread() or _descriptor(own) or _memory()


def _thread() -> str:
    threads = {int(name) for name in os.listdir(_SELF / "task")} - {os.getpid()}  # noqa: PTH208
    if not threads:
        return ""
    names = {one.native_id: one.name for one in threading.enumerate()}
    for thread in sorted(threads):
        if thread in names:
            return f"the thread {names[thread]!r} runs"
    return f"threads run that a library has started without Python ({len(threads)})"


def _descriptor(own: tuple[int, ...]) -> str:
    for fd, status in _opened():
        if fd in own or _given.get(fd) == (status.st_dev, status.st_ino):
            continue
        try:
            what = str((_SELF / "fd" / str(fd)).readlink())
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and _only_appends(fd):
            continue  # a log: each line goes to its end, whichever process writes it
        if stat.S_ISCHR(status.st_mode) and what in _SHARED_DEVICES:
            continue
        return f"{_kind(status.st_mode, what)} is open"
    return ""


def _kind(mode: int, what: str) -> str:
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if what.startswith("anon_inode:"):
        kind = what.removeprefix("anon_inode:").strip("[]")
        return f"a descriptor of kind {kind}"
    return f"the file {what!r}"


def _only_appends(fd: int) -> bool:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    return bool(flags & os.O_APPEND) and flags & os.O_ACCMODE == os.O_WRONLY


def _memory() -> str:
    """Memory that a fork shares instead of copying, such as a lock of `multiprocessing`."""
    with (_SELF / "maps").open("rb") as maps:
        for line in maps:
            if line.split(None, 2)[1] == b"rw-s":
                return "memory is shared with other processes"
    return ""


def _opened() -> Iterator[tuple[int, os.stat_result]]:
    """The open descriptors but for the standard streams."""
    for name in os.listdir(_SELF / "fd"):  # noqa: PTH208
        fd = int(name)
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # that of the listing itself
        if fd > 2:
            yield fd, status
