"""What a task changes of its process does not reach the next one.

Each task has a context of its own (context variables, the active language and time zone), a copy of
the worker's. `database` looks after its connections. This file is about what a process
has only once, such as its working directory. A child replaces the functions that change such things
by ones that note which thread has called them; only then are they read after the task and put back.
Asking the system after each task would cost several microseconds.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import locale
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

from jobs.exceptions import TransactionLeftOpen
from jobs.message import Message
from jobs.worker.run import database

log = logging.getLogger("jobs.worker")

#: The plain function, which notes nothing: the worker's own timers use it.
setitimer = signal.setitimer


class _Kept(NamedTuple):
    """Something that a process has once."""

    name: str
    read: Callable[[], Any]
    #: Put back what was read.
    write: Callable[[Any], object]
    #: What changes it: a module or class, and the name of its function.
    by: tuple[tuple[Any, str], ...]


def _directory() -> Any:
    here = os.stat(".")  # noqa: PTH116  its path may have gone
    return here.st_dev, here.st_ino


def _umask() -> int:
    was = os.umask(0o077)
    os.umask(was)
    return was


def _handlers() -> dict[int, Any]:
    return {signum: signal.getsignal(signum) for signum in signal.valid_signals()}


def _set_handlers(known: dict[int, Any]) -> None:
    for signum, handler in known.items():
        if handler is not None and signal.getsignal(signum) != handler:
            signal.signal(signum, handler)
    signal.set_wakeup_fd(-1)


def _mask() -> set[Any]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _timers() -> list[bool]:
    """Which of them run. The worker itself uses ITIMER_REAL, with a handler, in the main thread;
    then other threads leave it alone."""
    which = [signal.ITIMER_VIRTUAL, signal.ITIMER_PROF]
    if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL or _in_main_thread():
        which.append(signal.ITIMER_REAL)
    return [signal.getitimer(one) != (0.0, 0.0) for one in which]


def _stop_timers(_: Any) -> None:
    for one in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        setitimer(one, 0)
    if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL or _in_main_thread():
        setitimer(signal.ITIMER_REAL, 0)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _set_filters(known: list[Any]) -> None:
    with warnings.catch_warnings():
        pass  # leaving it makes modules forget what they have cached of the filters
    warnings.filters[:] = known  # type: ignore[index]


def _set_gc(known: tuple[bool, tuple[int, ...]]) -> None:
    enabled, thresholds = known
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*thresholds)


_KEPT = (
    # First: a timer that goes off under a handler which is restored would end the process.
    _Kept("timers", _timers, _stop_timers, ((signal, "alarm"), (signal, "setitimer"))),
    _Kept(
        "signal handlers", _handlers, _set_handlers, ((signal, "signal"), (signal, "set_wakeup_fd"))
    ),
    _Kept(
        "the signal mask",
        _mask,
        lambda known: signal.pthread_sigmask(signal.SIG_SETMASK, known),
        ((signal, "pthread_sigmask"),),
    ),
    _Kept(
        "the working directory",
        _directory,
        lambda _: os.fchdir(_home),
        ((os, "chdir"), (os, "fchdir")),
    ),
    _Kept("the umask", _umask, os.umask, ((os, "umask"),)),
    _Kept(
        "the recursion limit",
        sys.getrecursionlimit,
        sys.setrecursionlimit,
        ((sys, "setrecursionlimit"),),
    ),
    _Kept(
        "warning filters",
        lambda: list(warnings.filters),
        _set_filters,
        (
            (warnings, "simplefilter"),
            (warnings, "filterwarnings"),
            (warnings, "resetwarnings"),
            (warnings.catch_warnings, "__enter__"),
        ),
    ),
    _Kept(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda known: locale.setlocale(locale.LC_ALL, known),
        ((locale, "setlocale"),),
    ),
    _Kept(
        "the time-out of sockets",
        socket.getdefaulttimeout,
        socket.setdefaulttimeout,
        ((socket, "setdefaulttimeout"),),
    ),
    _Kept(
        "logging.disable",
        lambda: logging.root.manager.disable,
        logging.disable,
        ((logging, "disable"),),
    ),
    _Kept(
        "the garbage collector",
        lambda: (gc.isenabled(), gc.get_threshold()),
        _set_gc,
        ((gc, "disable"), (gc, "enable"), (gc, "set_threshold")),
    ),
)

_watching = False
#: What each of them was when the child began, by its name.
_known: dict[str, Any] = {}
#: The directory in which the child began.
_home = -1
_stdout, _stderr = sys.stdout, sys.stderr
#: Thread → what functions that it called may have changed.
_noted: dict[int, set[str]] = {}


def watch() -> None:
    """Note from now on what changes the process. Called once, before the project's code is loaded,
    which may import such functions under names of its own."""
    global _watching
    _watching = True
    for kept in _KEPT:
        for holder, name in kept.by:
            _note(holder, name, kept.name)


def remember() -> None:
    """Keep the present state of the process: each task is to find it."""
    global _home, _stdout, _stderr
    if not _watching:
        return
    _known.update({kept.name: kept.read() for kept in _KEPT})
    _known["timers"] = [False] * len(_known["timers"])
    _home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _stdout, _stderr = sys.stdout, sys.stderr
    _noted.clear()


def _note(holder: Any, name: str, what: str) -> None:
    plain = getattr(holder, name)

    @functools.wraps(plain)
    def noting(*args: Any, **kwargs: Any) -> Any:
        _noted.setdefault(get_ident(), set()).add(what)
        return plain(*args, **kwargs)

    if hasattr(holder, "__name__") and not isinstance(holder, type):
        noting.__module__ = holder.__name__  # where pickle looks for it
    if plain in os.supports_fd:
        os.supports_fd.add(noting)
    setattr(holder, name, noting)


#: In a process that a task has forked, what ends it when the task's function returns there.
end_fork: Callable[[bool], None] | None = None


def after_task(sent: Message) -> TransactionLeftOpen | None:
    """Undo what the task has changed, and return the error if it left a transaction open. Called in
    the thread that ran it, before its outcome is handed on."""
    if _noted:
        _restore(sent)
    if sys.stdout is not _stdout or sys.stderr is not _stderr:
        _restore_output(sent)
    return database.after_call(sent)


def _restore(sent: Message) -> None:
    names = _noted.pop(get_ident(), ())
    for kept in _KEPT:
        if kept.name not in names or kept.name not in _known:
            continue
        known = _known[kept.name]
        with contextlib.suppress(OSError, ValueError):
            if kept.read() != known:
                log.warning(
                    "task %s[%s] changed %s: the next one finds it as it was",
                    sent.task,
                    sent.id,
                    kept.name,
                )
                kept.write(known)
    _noted.pop(get_ident(), None)  # restoring uses the same functions


def _restore_output(sent: Message) -> None:
    """Only in the main thread: elsewhere another task may just be redirecting it."""
    if _known and _in_main_thread():
        sys.stdout, sys.stderr = _stdout, _stderr
        log.warning("task %s[%s] replaced sys.stdout or sys.stderr", sent.task, sent.id)
