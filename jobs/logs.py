"""Which call wrote a line of the log: task, id, queue, attempt and worker, on every record.

::

    LOGGING = {
        "filters": {"jobs": {"()": "jobs.logs.JobFilter"}},
        "formatters": {"jobs": {"format": "%(levelname)s %(task_name)s[%(task_id)s] %(message)s"}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "filters": ["jobs"], "formatter": "jobs"}
        },
        ...
    }

docs/logging.md has more of it. Logging is configured before apps are loaded, so nothing that is
imported here may import models.
"""

from __future__ import annotations

import logging
from typing import Any

from jobs.message import Message
from jobs.running.request import current

#: What `JobFilter` puts on a record.
NAMES = ("task_id", "task_name", "task_queue", "task_attempt", "task_worker")


def about(sent: Message, worker: str = "") -> dict[str, Any]:
    """What a line of the log says of this call, by `NAMES`: for ``extra`` where none is running."""
    return {
        "task_id": sent.id,
        "task_name": sent.task,
        "task_queue": sent.queue,
        "task_attempt": sent.attempt,
        "task_worker": worker,
    }


def context() -> dict[str, Any]:
    """The call that is running here, by `NAMES`; empty outside of any call.

    Each thread and asyncio task has a context of its own. `asyncio` and ``asyncio.to_thread`` copy
    it; a thread that a task starts itself begins without one.
    """
    running = current.get()
    return about(*running) if running else {}


class JobFilter(logging.Filter):
    """Lets every record pass, with the attributes `NAMES` on it.

    Attach it to handlers: a filter of a logger doesn't see the records of loggers below it.
    Attributes that a record has already, by ``extra``, stay what they are.
    """

    def __init__(self, name: str = "", *, empty: Any = "-") -> None:
        """``name``: as for every `logging.Filter`: let pass records of this logger alone.
        ``empty``: the value of all attributes outside of any call."""
        super().__init__(name)
        self.empty = empty

    def filter(self, record: logging.LogRecord) -> bool:
        found = context()
        for name in NAMES:
            if name not in record.__dict__:
                record.__dict__[name] = found.get(name, self.empty)
        return bool(super().filter(record))


def get_task_logger(name: str) -> logging.Logger:
    """Celery's name for `logging.getLogger`: Django's LOGGING says what becomes of its lines."""
    return logging.getLogger(name)
