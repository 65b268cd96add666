"""What each runner of a child is doing, in memory that it shares with its supervisor.

The child writes, the supervisor reads: which deliveries were running when the child died (only
those are to blame), and until when each may run. A place is 24 bytes: an id that tells deliveries
apart (0: idle), the end of its time (monotonic seconds; infinity: none), and why it is to be
killed then.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import struct
import tempfile
import zlib
from typing import NamedTuple

from jobs.message import Killed

_PLACE = struct.Struct("<qdq")
_REASONS = [Killed.TIME_LIMIT, Killed.REVOKED]


class Running(NamedTuple):
    """One delivery that a runner is in."""

    delivery: int
    ends: float
    reason: Killed


def key(queue: str, number: int) -> int:
    """Tells a delivery of one consumer from all others: numbers are each queue's own."""
    return _tag(queue) | number & 0x7FFF_FFFF


@functools.cache
def _tag(queue: str) -> int:
    return (zlib.crc32(queue.encode()) or 1) << 31


class Board:
    """The places of one child; made by the supervisor, opened by the child through its fd."""

    def __init__(self, fd: int, places: int) -> None:
        self.fd = fd
        self.places = places
        # One more, by which the child says that it is ready.
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

    def set_ready(self) -> None:
        self.begin(self.places, 1)

    def begin(self, place: int, delivery: int, ends: float = math.inf) -> None:
        _PLACE.pack_into(self._memory, place * _PLACE.size, delivery, ends, 0)

    def end(self, place: int) -> None:
        _PLACE.pack_into(self._memory, place * _PLACE.size, 0, math.inf, 0)

    def condemn(self, delivery: int, now: float) -> bool:
        """Have the process that runs this delivery killed for its revocation. False: it isn't
        running."""
        for place in range(self.places):
            if self._read(place).delivery == delivery:
                _PLACE.pack_into(self._memory, place * _PLACE.size, delivery, now, 1)
                return True
        return False

    def running(self) -> list[Running]:
        # At once: with batches there are many places, nearly all of them empty.
        places = _PLACE.iter_unpack(self._memory[: self.places * _PLACE.size])
        return [Running(what, ends, _REASONS[why]) for what, ends, why in places if what]

    def _read(self, place: int) -> Running:
        delivery, ends, reason = _PLACE.unpack_from(self._memory, place * _PLACE.size)
        return Running(delivery, ends, _REASONS[reason])
