"""Time limits: what each can interrupt.

==============  =============================================  ==================================
runner          soft limit (an exception inside the task)      hard limit (the process is killed)
==============  =============================================  ==================================
main thread     a signal: anything but C code that neither     anything
                returns nor looks at signals
threads         at the next Python instruction: not a call     anything; the other tasks of the
                that blocks in C                               process are run again
event loop      at the next ``await``                          as with threads
==============  =============================================  ==================================
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

from jobs.api.task import Task
from jobs.exceptions import SoftTimeLimitExceeded
from jobs.message import Message
from jobs.worker.loops import vital
from jobs.worker.run.isolation import setitimer


class Timer(Protocol):
    """Raises `SoftTimeLimitExceeded` in the thread that runs a task."""

    def limit(self, seconds: float | None) -> contextlib.AbstractContextManager[None]: ...


class Limits:
    """The limits of one child's tasks, in seconds; None: no limit."""

    def __init__(self, timer: Timer, *, soft: float | None = None, hard: float | None = None):
        """``soft``, ``hard``: the worker's own, for tasks that have none."""
        self.timer = timer
        self._soft = soft
        self._hard = hard

    def soft(self, sent: Message, task: Task[..., Any]) -> float | None:
        """Until `SoftTimeLimitExceeded`: the call's, else the task's, else the worker's."""
        return sent.timelimit[1] or task.soft_time_limit or self._soft

    def hard(self, sent: Message, task: Task[..., Any]) -> float | None:
        """Until the process is killed: likewise."""
        return sent.timelimit[0] or task.time_limit or self._hard


class MainThreadTimer:
    """By SIGALRM, which Python handles in the main thread."""

    def __init__(self) -> None:
        self._armed = False
        signal.signal(signal.SIGALRM, self._ring)

    @contextlib.contextmanager
    def limit(self, seconds: float | None) -> Iterator[None]:
        if seconds is None:
            yield
            return
        self._armed = True
        setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            # First: a signal that comes from here on belongs to a task that has ended.
            self._armed = False
            setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise SoftTimeLimitExceeded


class ThreadTimer:
    """By an exception that CPython raises in another thread at its next instruction.

    One watcher thread serves all threads; it starts with the first limit.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: Thread → when its task has had its time (monotonic). Whoever takes an entry out decides
        #: what becomes of the task.
        self._ends: dict[int, float] = {}
        #: Threads in which the exception is just being raised.
        self._raising: set[int] = set()
        self._watcher: threading.Thread | None = None

    @contextlib.contextmanager
    def limit(self, seconds: float | None) -> Iterator[None]:
        if seconds is None:
            yield
            return
        me = threading.get_ident()
        with self._changed:
            self._ends[me] = time.monotonic() + seconds
            if self._watcher is None:
                self._watcher = threading.Thread(
                    target=vital(self._watch), name="jobs-soft-limits", daemon=True
                )
                self._watcher.start()
            self._changed.notify()
        try:
            yield
        finally:
            # Without the lock: the exception may come at any instruction from here on, and would
            # leave a lock locked that was just being taken.
            if self._ends.pop(me, None) is None:
                while me in self._raising:
                    time.sleep(0)
                # What was raised and has not come yet belongs to a task that has ended.
                _raise_in(me, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                for thread, ends in list(self._ends.items()):
                    if ends <= now:
                        self._end(thread)
                first = min(list(self._ends.values()), default=None)
                self._changed.wait(None if first is None else first - now)

    def _end(self, thread: int) -> None:
        self._raising.add(thread)
        if self._ends.pop(thread, None) is not None:
            _raise_in(thread, SoftTimeLimitExceeded)
        self._raising.discard(thread)


def _raise_in(thread: int, kind: type[Exception] | None) -> None:
    """Have this raised in another thread at its next instruction; None: what has not come yet
    doesn't."""
    raised = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
