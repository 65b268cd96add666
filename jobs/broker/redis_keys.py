"""Names of keys on Redis, and the form of what is due."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.broker.base import About, lists_of

#: Celery's separator of queue and priority step.
SEPARATOR = "\x06\x16"


class Keys:
    """The names of one queue's keys: `jobs/broker/lua/README.md`."""

    def __init__(self, prefix: str, queue: str, steps: Sequence[int]) -> None:
        names = [queue] + [f"{queue}{SEPARATOR}{step}" for step in steps[1:]]
        #: A list for each priority step.
        self.lists = tuple(prefix + name for name in names)
        self._tag = f"{prefix}{{{queue}}}"
        self.consumers = f"{self._tag}:consumers"
        self.due = f"{self._tag}:due"
        self.dead = f"{self._tag}:dead"
        self.bell = f"{self._tag}:bell"
        self.revoked = f"{self._tag}:revoked"
        self.paused = f"{self._tag}:paused"
        self.workers = f"{self._tag}:workers"
        # Ready-made for the scripts of every send, one for each priority.
        self.push = tuple((self.lists[n], self.bell) for n in lists_of(steps))
        self.schedule = (self.due, self.bell)
        #: The lists that sending writes to.
        self.written = (*self.lists, self.bell)

    def inflight(self, consumer: str) -> str:
        return f"{self._tag}:inflight:{consumer}"

    def taken(self, consumer: str) -> str:
        return f"{self._tag}:taken:{consumer}"

    def note(self, about: About, task_id: str) -> str:
        return f"{self._tag}:{about}:{task_id}"

    def claimed(self, consumer: str) -> str:
        return f"{self._tag}:claimed:{consumer}"


def member(priority: int, raw: bytes) -> bytes:
    return b"%d|%b" % (priority, raw)
