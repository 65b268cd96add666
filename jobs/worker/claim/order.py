"""In which order a consumer asks its queues. Pure: it is told what each of them gave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence


class Order(ABC):
    @abstractmethod
    def next(self) -> Sequence[str]:
        """The queues, in the order of the next pass."""

    @abstractmethod
    def asked(self, queue: str, count: int, *, got: int) -> None:
        """A queue was asked for so many messages, and gave so many."""


class Strict(Order):
    """Always the same: the second is asked when the first is empty."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._queues = queues

    def next(self) -> Sequence[str]:
        return self._queues

    def asked(self, queue: str, count: int, *, got: int) -> None:
        pass


class Weighted(Order):
    """Each queue that has messages gets its share of the claims, by weight.

    Each has a mark on a line, and the one that is least far comes first. What a queue was asked
    for, divided by its weight, moves it forward. So a queue of any weight has its turn, and one
    that was empty is asked again no sooner than if it had given everything.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._marks = dict.fromkeys(weights, 0.0)
        #: Where the line has come to: the mark of the last that gave all it was asked for.
        self._now = 0.0

    def next(self) -> Sequence[str]:
        return sorted(self._marks, key=self._marks.__getitem__)  # equal ones: as they were given

    def asked(self, queue: str, count: int, *, got: int) -> None:
        step = count / self._weights[queue]
        if got < count:
            # It has nothing left. Neither does it save up while it is empty, nor does it owe what
            # it got while nobody else had anything.
            self._marks[queue] = self._now + step
            return
        self._now = max(self._now, self._marks[queue])
        self._marks[queue] += step


def of(queues: Sequence[str], weights: Sequence[int]) -> Order:
    """``weights``: one for each queue; none at all: in strict order."""
    if not weights:
        return Strict(queues)
    return Weighted(dict(zip(queues, weights, strict=True)))
