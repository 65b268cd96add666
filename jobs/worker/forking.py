"""A process that a task forks (`multiprocessing`, `os.fork`) starts like a fresh one.

Otherwise it would inherit the worker's signal handlers, which only note that the worker is to stop,
and its connections: if it closed one, the server would end the worker's. A fork copies no threads,
but the locks that they held.
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

from jobs.worker.board import DUMP
from jobs.worker.child import Child
from jobs.worker.run import isolation

#: Signals for which the worker has handlers of its own.
OURS = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGINT, DUMP)

#: Connections that a forked process must neither use nor close. It keeps them for ever: collecting
#: one of SQLite's rolls back another process's transaction in the same file.
_inherited: list[object] = []


def install(child: Child) -> None:
    """Arrange this for all processes that the child forks. To be called once."""
    #: The connections of all threads that are still in use.
    in_use: WeakValueDictionary[int, BaseDatabaseWrapper] = WeakValueDictionary()
    before = threading.local()

    def note(connection: BaseDatabaseWrapper, **_: object) -> None:
        in_use[id(connection)] = connection

    def hold() -> None:
        # The worker's handlers would swallow a signal that comes before they are replaced, such as
        # that of `Process.terminate` right after `Process.start`.
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
        # Kept here, since the new process collects other threads' connections before any code runs.
        wrappers = [reference() for reference in in_use.valuerefs()]
        before.connections = [(one, one.connection) for one in wrappers if one is not None]

    def go_on() -> None:
        del before.connections
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def start_afresh() -> None:
        child.board.detach()
        child.end_tasks_by(lambda outcome: _end(outcome.failed))
        isolation.end_fork = _end
        _inherited.append(before.connections)
        for wrapper in connections.all(initialized_only=True):
            del connections[wrapper.alias]
        faulthandler.unregister(DUMP)
        for signum in OURS:
            own = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            signal.signal(signum, own)
        faulthandler.unregister(signal.SIGQUIT)
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    connection_created.connect(note, weak=False, dispatch_uid="jobs.worker.forking")
    os.register_at_fork(before=hold, after_in_parent=go_on, after_in_child=start_afresh)


def _end(failed: bool) -> NoReturn:
    """End the forked process when the task's function ends in it. The call has no outcome by that:
    it goes on in the child that forked."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(1 if failed else 0)
