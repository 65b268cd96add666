"""Django's care for database connections around a request, around a stretch of tasks."""

from __future__ import annotations

import time

from django.db import close_old_connections, reset_queries

#: Least time, in seconds, between two looks at a thread's connections.
_EVERY = 1.0


class Care:
    """Closes what has outlived CONN_MAX_AGE or is broken, at most once a second.

    Not after each task: with Django's default CONN_MAX_AGE of 0 every short task would pay for a
    new connection, which is what slows other systems with results in the database ten times.
    """

    def __init__(self) -> None:
        self._next = 0.0
        #: Whether the thread may have connections that nobody has looked at since.
        self.pending = False

    def between_tasks(self) -> None:
        self.pending = True
        now = time.monotonic()
        if now >= self._next:
            self.now()
            self.pending = True

    def now(self) -> None:
        """Also after a task that failed: it may have left its connection in any state."""
        self.pending = False
        self._next = time.monotonic() + _EVERY
        close_old_connections()
        reset_queries()  # with DEBUG on, Django keeps every statement
