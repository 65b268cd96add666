"""What a task forks (`multiprocessing`, `os.fork`) is no worker: it gets the signals, connections
and locks of a fresh process.

A process inherits the signal handlers of the one that forked it, which here would only note that
the worker is to stop; and its connections, whose end the server would take for that of the worker's
own. Threads it doesn't inherit, but what they held locked.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from typing import NoReturn
from weakref import WeakValueDictionary

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from jobs.worker import isolation
from jobs.worker.child import Child

#: Signals whose handlers are the worker's own.
OURS = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGINT)

#: Connections of all threads, as long as they are used.
_open: WeakValueDictionary[int, BaseDatabaseWrapper] = WeakValueDictionary()
#: What a forked process must neither use nor close. Held for ever: SQLite would roll back another
#: process's transaction, in its file, when such a connection is collected.
_inherited: list[object] = []
_before = threading.local()


def install(child: Child) -> None:
    """Have it so in all that this process forks. To be called once, in a process of its own."""
    connection_created.connect(_note, dispatch_uid="jobs.worker.forking")

    def start_afresh() -> None:
        child.board.detach()
        child.end_tasks_by(lambda outcome: _end(outcome.failed))
        isolation.end_fork = _end
        _start_afresh()

    os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=start_afresh)


def _note(connection: BaseDatabaseWrapper, **_: object) -> None:
    _open[id(connection)] = connection


def _hold() -> None:
    # A signal that came before the handlers are gone would be lost: `Process.terminate` right
    # after `Process.start`.
    _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
    # Those of other threads would be collected with the threads, before anything can be done.
    wrappers = [reference() for reference in _open.valuerefs()]
    _before.connections = [(one, one.connection) for one in wrappers if one is not None]


def _go_on() -> None:
    del _before.connections
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)


def _start_afresh() -> None:
    _inherited.append(_before.connections)
    for wrapper in connections.all(initialized_only=True):
        del connections[wrapper.alias]
    for signum in OURS:
        own = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
        signal.signal(signum, own)
    faulthandler.unregister(signal.SIGQUIT)
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)


def _end(failed: bool) -> NoReturn:
    """The task's function came to its end in a process that it has forked. That is no worker's, and
    no outcome of the call, which goes on where it was started."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(1 if failed else 0)
