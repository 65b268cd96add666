"""Where Celery's workers leave the results of calls, and how others hear of them.

The keys and channels are those of Celery's Redis backend: a result is the JSON in
`celery-task-meta-<task id>`, and is published on the channel of the same name.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

#: What the names of Celery's keys and channels begin with.
PREFIX = "celery-task-meta-"

#: Receives the next id within so many seconds; "" when none comes.
Hear = Callable[[float], str]


class CeleryEnds(ABC):
    """The results in one database. Each thread has connections of its own."""

    @abstractmethod
    def listen(self) -> contextlib.AbstractContextManager[Hear]:
        """Hear of the calls, by their ids, whose results are stored from the moment the context is
        entered. Raises `BrokerUnavailable`."""

    @abstractmethod
    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The results of those of these calls that have any: id → JSON in Celery's form."""

    @abstractmethod
    def forget(self, task_id: str) -> None:
        """Delete the result of a call."""

    @abstractmethod
    def close(self) -> None:
        """Close this thread's connections."""
