"""What a task changes of its process and its connections does not reach the next one.

Each task has a context of its own (context variables, the active language and time zone), a copy of
the worker's. This file is about the rest.

**The process** has some things only once, such as its working directory. A child replaces the
functions that change such things by ones that note which thread has called them; only then are they
read after the task and put back. Asking the system after each task would cost several microseconds.

**The database's connections** are looked at after each task that has used any (`after_call`;
`database` says what a task can change of one), and once a second as Django does around a request
(`Care`).
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
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import get_ident
from typing import Any

from asgiref.sync import SyncToAsync
from django.db import Error as DatabaseError
from django.db import close_old_connections, connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from jobs.exceptions import TransactionLeftOpen
from jobs.message import Message
from jobs.running.request import current
from jobs.worker.run import database
from jobs.worker.run.database import Owner, Watched

log = logging.getLogger("jobs.worker")

#: The plain function, which notes nothing: the worker's own timers use it.
setitimer = signal.setitimer

# ------------------------------------------------------------------------------ the process


#: What a process has once → the functions that change it: each one's module or class, and its name.
_CHANGED_BY: dict[str, tuple[tuple[Any, str], ...]] = {
    # First: a timer that goes off under a handler which is restored would end the process.
    "timers": ((signal, "alarm"), (signal, "setitimer")),
    "signal handlers": ((signal, "signal"), (signal, "set_wakeup_fd")),
    "the signal mask": ((signal, "pthread_sigmask"),),
    "the working directory": ((os, "chdir"), (os, "fchdir")),
    "the umask": ((os, "umask"),),
    "the recursion limit": ((sys, "setrecursionlimit"),),
    "warning filters": (
        (warnings, "simplefilter"),
        (warnings, "filterwarnings"),
        (warnings, "resetwarnings"),
        (warnings.catch_warnings, "__enter__"),
    ),
    "the locale": ((locale, "setlocale"),),
    "the time-out of sockets": ((socket, "setdefaulttimeout"),),
    "logging.disable": ((logging, "disable"),),
    "the garbage collector": ((gc, "disable"), (gc, "enable"), (gc, "set_threshold")),
}


def _read(name: str) -> Any:
    """How this is now."""
    match name:
        case "timers":
            return any(signal.getitimer(one) != (0.0, 0.0) for one in _timers_of_tasks())
        case "signal handlers":
            return {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
        case "the signal mask":
            return signal.pthread_sigmask(signal.SIG_BLOCK, ())
        case "the working directory":
            here = os.stat(".")  # noqa: PTH116  its path may have gone
            return here.st_dev, here.st_ino
        case "the umask":
            umask = os.umask(0o077)
            os.umask(umask)
            return umask
        case "the recursion limit":
            return sys.getrecursionlimit()
        case "warning filters":
            return list(warnings.filters)
        case "the locale":
            return locale.setlocale(locale.LC_ALL)
        case "the time-out of sockets":
            return socket.getdefaulttimeout()
        case "logging.disable":
            return logging.root.manager.disable
        case "the garbage collector":
            return gc.isenabled(), gc.get_threshold()


def _put_back(name: str, known: Any) -> None:
    """Make it what it was when `_read` returned this."""
    match name:
        case "timers":
            for one in _timers_of_tasks():
                setitimer(one, 0)
        case "signal handlers":
            for signum, handler in known.items():
                if handler is not None and signal.getsignal(signum) != handler:
                    signal.signal(signum, handler)
            signal.set_wakeup_fd(-1)
        case "the signal mask":
            signal.pthread_sigmask(signal.SIG_SETMASK, known)
        case "the working directory":
            os.fchdir(_home)
        case "the umask":
            os.umask(known)
        case "the recursion limit":
            sys.setrecursionlimit(known)
        case "warning filters":
            with warnings.catch_warnings():
                pass  # leaving it makes modules forget what they have cached of the filters
            warnings.filters[:] = known  # type: ignore[index]
        case "the locale":
            locale.setlocale(locale.LC_ALL, known)
        case "the time-out of sockets":
            socket.setdefaulttimeout(known)
        case "logging.disable":
            logging.disable(known)
        case "the garbage collector":
            (gc.enable if known[0] else gc.disable)()
            gc.set_threshold(*known[1])


def _timers_of_tasks() -> list[int]:
    """The timers that only tasks use. The worker itself uses ITIMER_REAL, with a handler, in the
    main thread; then other threads leave it alone."""
    which = [signal.ITIMER_VIRTUAL, signal.ITIMER_PROF]
    if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL or _in_main_thread():
        which.append(signal.ITIMER_REAL)
    return which


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


_noting = False
#: What each of them was when the child began, by its name.
_known: dict[str, Any] = {}
#: The directory in which the child began.
_home = -1
_stdout, _stderr = sys.stdout, sys.stderr
#: Thread → what functions that it called may have changed.
_noted: dict[int, set[str]] = {}


def note_changes() -> None:
    """Note from now on what changes the process. Called once, before the project's code is loaded,
    which may import such functions under names of its own."""
    global _noting
    _noting = True
    for what, functions in _CHANGED_BY.items():
        for holder, name in functions:
            _note(holder, name, what)


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


def remember() -> None:
    """Keep the present state of the process: each task is to find it."""
    global _home, _stdout, _stderr
    if not _noting:
        return
    _known.update({name: _read(name) for name in _CHANGED_BY} | {"timers": False})
    _home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _stdout, _stderr = sys.stdout, sys.stderr
    _noted.clear()


#: In a process that a task has forked, what ends it when the task's function returns there.
end_fork: Callable[[bool], None] | None = None


def after_task(sent: Message) -> TransactionLeftOpen | None:
    """Undo what the task has changed, and return the error if it left a transaction open. Called in
    the thread that ran it, before its outcome is handed on."""
    if _noted:
        noted = _noted.pop(get_ident(), set())
        for name in [name for name in _known if name in noted]:  # in the order of the table
            with contextlib.suppress(OSError, ValueError):
                if _read(name) != _known[name]:
                    text = "task %s[%s] changed %s: the next one finds it as it was"
                    log.warning(text, sent.task, sent.id, name)
                    _put_back(name, _known[name])
        _noted.pop(get_ident(), None)  # restoring uses the same functions
    replaced = sys.stdout is not _stdout or sys.stderr is not _stderr
    # Only in the main thread: elsewhere another task may just be redirecting its output.
    if replaced and _known and _in_main_thread():
        sys.stdout, sys.stderr = _stdout, _stderr
        log.warning("task %s[%s] replaced sys.stdout or sys.stderr", sent.task, sent.id)
    return after_call(sent)


# ------------------------------------------------------------------------------ connections


class Care:
    """Closes the thread's connections that are broken or have outlived CONN_MAX_AGE, at most once a
    second.

    Not after each task: with Django's default CONN_MAX_AGE of 0 every short task would pay for a
    new connection, which is what slows other systems with results in the database ten times.
    """

    def __init__(self) -> None:
        self._next = 0.0
        #: Whether the thread may have connections that nobody has looked at since.
        self.pending = False

    def between_tasks(self, now: float) -> None:
        """``now``: monotonic seconds."""
        if now >= self._next:
            self.now()
        self.pending = True

    def now(self) -> None:
        """Also after a task that failed: it may have left its connection in any state."""
        self.pending = False
        self._next = time.monotonic() + database.EVERY
        close_old_connections()
        reset_queries()  # with DEBUG on, Django keeps every statement


class _Here(threading.local):
    def __init__(self) -> None:
        self.thread = Owner()


_here = _Here()
#: Threads that are not ours, with a connection.
_others: set[Owner] = set()
_keeper: threading.Thread | None = None
_starting = threading.Lock()


def claim_thread() -> None:
    """This thread runs tasks, and looks at its connections after each."""
    _here.thread.ours = True


def after_call(sent: Message | None) -> TransactionLeftOpen | None:
    """Make this thread's connections what they were; return the error if a transaction was open.

    ``sent``: the task that worked with them; None: it isn't known.
    """
    thread = _here.thread
    if not thread.watched:
        return None  # the usual case, at every task
    error = None
    who = "a call beside the tasks" if sent is None else f"task {sent.task}[{sent.id}]"
    for watched in [*thread.watched]:
        found = watched.close_cursors()
        if not watched.is_as_it_was():
            alias = watched.connection.alias
            left, lost = watched.restore()
            if watched.discarded:
                thread.watched.remove(watched)
            if left:
                log.warning(
                    "%s left %s on database %r: %s",
                    who,
                    " and ".join(left),
                    alias,
                    "what it wrote there since is rolled back"
                    if lost
                    else "the next task finds it as it was",
                )
            if lost:
                error = TransactionLeftOpen(
                    f"{who} left a transaction open on database {alias!r}: what it wrote there is "
                    "rolled back. Commit it, or use transaction.atomic() in a with statement."
                )
        elif thread.ours:
            try:
                found += watched.close_server_cursors()
            except DatabaseError:
                watched.restore()
        if found:
            log.warning("%s left %d cursors open: they are closed", who, found)
    return error


def close_unread(sent: Message) -> None:
    """Close the cursors that an async task left open, in the thread in which it used the ORM. Only
    when the task has ended: until then `aiterator` may read on, call by call."""
    if not database.unread:
        return
    if left := database.still_held(database.unread.pop(sent.id, ())):
        log.warning(
            "task %s[%s] left %d cursors open: they are closed", sent.task, sent.id, len(left)
        )
        SyncToAsync.single_thread_executor.submit(database.close, left)


class Executor(ThreadPoolExecutor):
    """Threads in which tasks use the ORM by `sync_to_async` or `asyncio.to_thread`: after each call
    their connections are what they were, whichever task's is the next."""

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads, "jobs-orm")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        running = current.get()
        sent = running[0] if running else None

        def call() -> Any:
            thread = _here.thread
            thread.shared = True
            with thread.lock:
                try:
                    result = fn(*args, **kwargs)
                except BaseException:
                    after_call(sent)
                    raise
                if error := after_call(sent):
                    raise error
                return result

        return super().submit(call)


@contextlib.contextmanager
def watching_connections() -> Iterator[None]:
    """Look after the connections of this process while a child works in it."""
    connections.close_all()  # opened while the code was loaded, and not watched
    # Last: other receivers may set up a new connection.
    connection_created.connect(_opened, dispatch_uid="jobs.database")
    former = SyncToAsync.single_thread_executor
    SyncToAsync.single_thread_executor = Executor(1)
    try:
        yield
    finally:
        connection_created.disconnect(dispatch_uid="jobs.database")
        SyncToAsync.single_thread_executor.shutdown(wait=False)
        SyncToAsync.single_thread_executor = former
        for watched in _here.thread.watched:
            with contextlib.suppress(ValueError):
                watched.connection.execute_wrappers.remove(watched)
        _here.thread.watched = []
        _here.thread.ours = False


def _opened(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Watch a new connection; a receiver of `connection_created`."""
    global _keeper
    thread = _here.thread
    if not (thread.ours or thread.shared) and thread.thread.name.startswith("jobs-"):
        return  # a thread of the worker's own, in which no task runs
    known = [watched for watched in thread.watched if watched.connection is connection]
    if known:
        known[0].begin()
    else:
        thread.watched.append(Watched(connection, thread))
    if thread.ours:
        return
    with _starting:
        _others.add(thread)
        if _keeper is None:
            _keeper = threading.Thread(target=_close_idle, name="jobs-connections", daemon=True)
            _keeper.start()


def _close_idle() -> None:
    """Close connections of threads that aren't ours when those don't use them any more."""
    global _keeper
    taken: list[Any] = []
    while True:
        time.sleep(database.EVERY)
        # Taken away a second ago: a thread that was just about to use one has noticed by now.
        for raw in taken:
            with contextlib.suppress(Exception):
                raw.close()
        now = time.monotonic()
        with _starting:
            idle = [watched.take_idle(now) for thread in _others for watched in thread.watched]
            taken = [raw for raw in idle if raw is not None]
            for thread in [*_others]:
                if all(watched.connection.connection is None for watched in thread.watched):
                    _others.discard(thread)
            if not _others and not taken:
                _keeper = None
                return
