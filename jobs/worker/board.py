"""What each runner of a child is doing, in memory that it shares with its supervisor.

The child writes, the supervisor reads: which deliveries were running when the child died (only
those are to blame), until when each may run, and since when it does. A place is 32 bytes: an id
that tells deliveries apart (0: idle), the end of its time (monotonic seconds; infinity: none), why
it is to be killed then, and its beginning (monotonic seconds).
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from jobs.message import Killed

_PLACE = struct.Struct("<qdqd")
_REASONS = [Killed.TIME_LIMIT, Killed.REVOKED]


class Running(NamedTuple):
    """One delivery that a runner is in."""

    delivery: int
    ends: float
    reason: Killed
    began: float = 0.0


def key(queue: str, number: int) -> int:
    """Tells a delivery of one consumer from all others: numbers are each queue's own."""
    return _tag(queue) | number & 0x7FFF_FFFF


def place_of(delivery: int, queues: Iterable[str]) -> tuple[str, int]:
    """The queue, one of these, and the number of a delivery by its `key`; "" when it is of none."""
    tag = delivery & ~0x7FFF_FFFF
    queue = next((queue for queue in queues if _tag(queue) == tag), "")
    return queue, delivery & 0x7FFF_FFFF


@functools.cache
def _tag(queue: str) -> int:
    return (zlib.crc32(queue.encode()) or 1) << 31


class Board:
    """The places of one child; made by the supervisor, opened by the child through its fd."""

    def __init__(self, fd: int, places: int) -> None:
        self.fd = fd
        self.places = places
        # One more, by which the child says that it is ready, and how many tasks it has run.
        self._memory = mmap.mmap(fd, (places + 1) * _PLACE.size)

    @classmethod
    def make(cls, places: int) -> Board:
        with tempfile.TemporaryFile(prefix="jobs-") as file:
            file.truncate((places + 1) * _PLACE.size)
            return cls(os.dup(file.fileno()), places)

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)

    @property
    def ready(self) -> bool:
        """Whether the child has begun to claim."""
        return bool(self._read(self.places).delivery)

    @property
    def processed(self) -> int:
        """How many tasks the child has run, as far as it has said so."""
        return max(0, self._read(self.places).delivery - 1)

    def set_ready(self, processed: int = 0) -> None:
        self.begin(self.places, 1 + processed)

    def begin(self, place: int, delivery: int, ends: float = math.inf, began: float = 0.0) -> None:
        _PLACE.pack_into(self._memory, place * _PLACE.size, delivery, ends, 0, began)

    def end(self, place: int) -> None:
        _PLACE.pack_into(self._memory, place * _PLACE.size, 0, math.inf, 0, 0.0)

    def condemn(self, delivery: int, now: float) -> bool:
        """Have the process that runs this delivery killed for its revocation. False: it isn't
        running."""
        for place in range(self.places):
            found = self._read(place)
            if found.delivery == delivery:
                where = place * _PLACE.size
                _PLACE.pack_into(self._memory, where, delivery, now, 1, found.began)
                return True
        return False

    def running(self) -> list[Running]:
        # At once: with batches there are many places, nearly all of them empty.
        places = _PLACE.iter_unpack(self._memory[: self.places * _PLACE.size])
        return [_running(*found) for found in places if found[0]]

    def _read(self, place: int) -> Running:
        return _running(*_PLACE.unpack_from(self._memory, place * _PLACE.size))


def _running(delivery: int, ends: float, reason: int, began: float) -> Running:
    return Running(delivery, ends, _REASONS[reason], began)
