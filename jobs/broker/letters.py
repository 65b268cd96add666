"""The part of a broker's contract that is about dead letters.

What is said in `jobs.broker.base` of consumers and numbers holds here as well.
"""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from typing import NamedTuple


class DeadLetter(NamedTuple):
    """A message that can't be run, kept for a person."""

    key: str
    raw: bytes
    reason: str
    at: dt.datetime
    #: Name of the worker that gave it up.
    worker: str


class Letters(ABC):
    @abstractmethod
    def dead_letter(self, queue: str, consumer: str, number: int, reason: str, worker: str) -> bool:
        """Move a delivery to the dead letters. False, and nothing done, when it is no longer
        held."""

    @abstractmethod
    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        """Add a message to the dead letters that was acknowledged before."""

    @abstractmethod
    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        """The newest ``count`` dead letters, or those older than the one with the key
        ``before``."""

    @abstractmethod
    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        """The dead letter with this key, or None when it isn't there."""

    @abstractmethod
    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        """Put a dead letter back on its queue, or ``raw`` in its place. False when it isn't there
        any more."""

    @abstractmethod
    def discard(self, queue: str, key: str) -> bool:
        """Delete a dead letter. False when it isn't there any more."""
