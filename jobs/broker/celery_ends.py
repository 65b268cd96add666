"""Where Celery's workers leave the results of calls, and how others hear of them.

The keys and channels are those of Celery's Redis backend: a result is the JSON in
`celery-task-meta-<task id>`, and is published on the channel of the same name.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

#: What the names of Celery's keys and channels begin with.
PREFIX = "celery-task-meta-"


class Said(NamedTuple):
    """A result as it was published."""

    task_id: str
    #: JSON in Celery's form, if it is Celery that has published it.
    text: bytes


#: Receives the next one within so many seconds; None when none comes.
Hear = Callable[[float], Said | None]


class CeleryEnds(ABC):
    """The results in one database. Each thread has connections of its own."""

    @abstractmethod
    def listen(self) -> contextlib.AbstractContextManager[Hear]:
        """Hear the results that are stored from the moment the context is entered. Raises
        `BrokerUnavailable`."""

    @abstractmethod
    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The results of those of these calls that have any: id → JSON in Celery's form."""

    @abstractmethod
    def forget(self, task_id: str) -> None:
        """Delete the result of a call."""

    @abstractmethod
    def close(self) -> None:
        """Close this thread's connections."""
