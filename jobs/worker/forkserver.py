"""The fork server: a process that has loaded the project, from which a worker forks its children.

It runs one thread and has nothing open but its link to the supervisor, and looks that this is so
before each fork (`leftovers`). Loaded modules are memory that it shares with all its children, and
a child starts in the time of a fork.

A child belongs to the supervisor, which waits for it and learns its exit status: a process between
the two forks ends at once, and the kernel gives the child to the supervisor, which is the nearest
"subreaper" above it (`ForkServer.fork` in `jobs.worker.supervisor.starting`).

Each message on the link is one JSON object:

supervisor   ``{"consumer", "options"}`` with two descriptors: the child's pipe and its board
fork server  ``{"ready": true}`` once the project is loaded; then for each request ``{"pid"}``,
             ``{"error"}`` when the system refuses a fork, or ``{"leftover"}`` when something is
             open or runs, after which it ends
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import json
import os
import random
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

import django

from jobs.worker import leftovers
from jobs.worker.__main__ import settle, work
from jobs.worker.prctl import SET_NAME, prctl
from jobs.worker.run import isolation

#: The names of these processes, as `ps -o comm` and `top` show them: a child's ends with the number
#: that it has in its worker.
NAME, CHILD = "jobs-forkserver", "jobs-child-"

#: Signals that the supervisor unblocks for itself, so that a fresh interpreter has them unblocked.
_HANDLED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT}

#: Bytes of the longest request: as many as an argument of a program may have.
LONGEST = 131_072


def main() -> None:
    """The fork server as a fresh interpreter, started with three descriptors: its link, and the
    worker's standard output and error, since its own are read until the project is loaded."""
    given, out, err = map(int, sys.argv[1:])
    for fd in (given, out, err):
        os.set_inheritable(fd, False)
    link = socket.socket(fileno=given)
    leftovers.note_start()
    isolation.note_changes()
    django.setup()
    _flush()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    warm()
    if left := leftovers.find(given):
        _send(link, leftover=left)
        os._exit(0)
    _send(link, ready=True)
    serve(link)


def warm() -> None:
    """Load what each child needs, close what may be open, and let forks share all of it."""
    from django.core.cache import caches
    from django.db import connections

    import jobs.broker.redis
    import jobs.worker.child
    import jobs.worker.forking  # noqa: F401

    for alias in connections:
        connections[alias]  # loads its backend
    connections.close_all()
    for wrapper in connections.all(initialized_only=True):
        del connections[wrapper.alias]
    caches.close_all()
    gc.collect()
    # A collection would write to every page. These objects are never collected: they are modules,
    # classes and settings.
    gc.freeze()


def serve(link: socket.socket) -> NoReturn:
    """Fork a child at each request, until the supervisor closes the link or dies."""
    try:
        with contextlib.suppress(OSError):
            prctl(SET_NAME, NAME.encode())
        # Out of the reach of Ctrl-C; and a signal to the whole service is the supervisor's affair.
        with contextlib.suppress(PermissionError):  # already the leader of its session
            os.setpgid(0, 0)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda *_: None)
        faulthandler.register(signal.SIGQUIT, all_threads=True)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        leftovers.close_given()
        while True:
            data, fds, _flags, _address = socket.recv_fds(link, LONGEST, 2)
            if not data:
                os._exit(0)
            try:
                _answer(link, json.loads(data), *fds)
            finally:
                for fd in fds:
                    os.close(fd)
    except BaseException:  # noqa: BLE001  it is printed, and the process ends
        sys.excepthook(*sys.exc_info())
        _flush()
    finally:
        os._exit(1)


def _answer(link: socket.socket, asked: dict[str, Any], tie: int, board: int) -> None:
    if left := leftovers.find(link.fileno(), tie, board):
        _send(link, leftover=left)
        os._exit(0)
    _flush()
    # What is sent to the child waits until it has the handlers of a fresh process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    said, say = os.pipe()
    gate, opener = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            _between(say, gate, (said, opener, link.fileno()), before, asked, tie, board)
        os.close(say)
        say = -1
        os.waitpid(between, 0)  # from now on the child is the supervisor's
        pid = os.read(said, 32)
        if pid:
            _send(link, pid=int(pid))
        else:
            _send(link, error="no process left")
    except OSError as error:
        _send(link, error=str(error))
    finally:
        for fd in (said, say, gate, opener):
            if fd >= 0:
                os.close(fd)  # the child goes on when the opener is closed
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _between(
    say: int,
    gate: int,
    others: tuple[int, ...],
    mask: set[int | signal.Signals],
    asked: dict[str, Any],
    tie: int,
    board: int,
) -> NoReturn:
    """The process between fork server and child: it forks the child and ends."""
    try:
        pid = os.fork()
        if pid:
            os.setpgid(pid, pid)  # before anybody can want to kill the group
            os.write(say, str(pid).encode())
            os._exit(0)
        for fd in (say, *others):
            os.close(fd)
        os.read(gate, 1)
        os.close(gate)
        _end(_run_child, mask, asked, tie, board)
    finally:
        os._exit(70)


def _run_child(
    mask: set[int | signal.Signals], asked: dict[str, Any], tie: int, board: int
) -> None:
    """Make this process what a fresh interpreter is, and work."""
    from django.db import connections

    from jobs import broker

    number = asked["consumer"].rpartition("/")[2].partition(".")[0]
    with contextlib.suppress(OSError):
        prctl(SET_NAME, f"{CHILD}{number}".encode())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    settle(tie, board)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask - _HANDLED)
    sys.argv[:] = ["-c", asked["consumer"], str(tie), str(board), asked["options"]]
    _draw_new_numbers()
    broker.get.cache_clear()
    for wrapper in connections.all(initialized_only=True):
        del connections[wrapper.alias]
    work(asked["consumer"], board, asked["options"])


def _draw_new_numbers() -> None:
    """Give the process random numbers of its own: those of `random`, of numpy, and the key with
    which the processes of `multiprocessing` know each other."""
    random.seed()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = os.urandom(32)


def _end(function: Any, *args: Any) -> NoReturn:
    """Call a function, and end the process as the interpreter does: wait for threads, then call
    what was registered with `atexit`. Nothing returns into the code from which the fork server was
    forked, which may be anybody's manage.py."""
    code = 0
    try:
        function(*args)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  it is shown as the interpreter shows it
        code = 1
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


def _send(link: socket.socket, **said: Any) -> None:
    try:
        link.send(json.dumps(said).encode())
    except OSError:
        os._exit(0)  # the supervisor is gone


def _flush() -> None:
    """Flush the output: a fork would copy the buffers, and both processes would write them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
