"""What each runner of a child is doing, in memory that it shares with its supervisor.

The child writes; the supervisor reads which deliveries were running when the child died (only those
are to blame), since when each has run, and until when it may. A place has 32 bytes: an id of the
delivery (0: idle), the end of its time (monotonic seconds; infinity: none), why the child is to be
killed then, and when it began (monotonic seconds). Behind the places stands what the child says of
itself, and what its supervisor says to it: whether to claim, that the broker may have lost what the
child holds, and which queues to take on or to give up.

What lies behind that in the file is not mapped. The child writes there the names of the tasks that
it knows, before it is ready, and later its stacks.
"""

from __future__ import annotations

import functools
import json
import math
import mmap
import os
import signal
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jobs.message import Killed

# Numbers as this machine writes them: the supervisor runs on the same one.
_PLACE = struct.Struct("=qdqd")
#: A place without its first value.
_TIMES = struct.Struct("=dqd")
#: Whether the child is ready, how many tasks it has run, how many of them failed, whether it has
#: finished its work (2: and is to be replaced); then, written by the supervisor, whether it is to
#: claim nothing (the lowest bit) and how often the broker may have lost messages (the others), how
#: often its queues have changed (odd while a change is written), and how many bytes name them.
_WORD = struct.Struct("=q")
_READY, _PROCESSED, _FAILED, _OVER, _QUIET, _CHANGES, _NAMED = range(7)
#: Bytes for the names of queues that a child takes on or gives up: of `MOST_CHANGES`, whatever
#: their characters are.
_NAMES = 65_536
#: Most queues that a worker may take on or give up while it runs.
MOST_CHANGES = 50

#: Makes a child write the stacks of all its threads behind its board. Python's handler works even
#: while a task holds the interpreter.
DUMP = signal.SIGUSR2

#: Most bytes of one child's stacks that are read.
_DUMPED = 200_000
_REASONS = [Killed.TIME_LIMIT, Killed.REVOKED]


class Running(NamedTuple):
    """A delivery that is running."""

    delivery: int
    ends: float
    reason: Killed
    began: float = 0.0


def key(queue: str, number: int) -> int:
    """The id of a delivery among all of one consumer: each queue has numbers of its own."""
    return _tag(queue) | number & 0x7FFF_FFFF


def place_of(delivery: int, queues: Iterable[str]) -> tuple[str, int]:
    """Queue and number of a delivery, from its `key`; the queue is "" if it is none of these."""
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
        self._size = size_of(places)
        self._use(mmap.mmap(fd, self._size))

    @classmethod
    def make(cls, places: int) -> Board:
        fd = scratch()
        os.truncate(fd, size_of(places))
        return cls(fd, places)

    def _use(self, memory: mmap.mmap | bytearray) -> None:
        self._memory = memory
        # The same as numbers of eight bytes each, of which `begin` and `end` write one at a time.
        self._words = memoryview(memory).cast("q")
        self._floats = memoryview(memory).cast("d")

    def close(self) -> None:
        self._words.release()
        self._floats.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
        os.close(self.fd)

    def detach(self) -> None:
        """Share it no longer: a task forked this process, which is not the child."""
        self._use(bytearray(self._size))

    @property
    def ready(self) -> bool:
        """Whether the child has begun to claim."""
        return bool(self._word(_READY))

    @property
    def processed(self) -> int:
        """How many tasks the child has run, when it last said."""
        return self._word(_PROCESSED)

    @property
    def failed(self) -> int:
        """How many of them failed for good."""
        return self._word(_FAILED)

    def set_ready(self, processed: int = 0, failed: int = 0) -> None:
        self._say(_PROCESSED, processed)
        self._say(_FAILED, failed)
        self._say(_READY, 1)

    @property
    def over(self) -> bool:
        """Whether the child has finished its work, and ends because of that."""
        return bool(self._word(_OVER))

    @property
    def spent(self) -> bool:
        """Whether it has ended only to be replaced by another."""
        return self._word(_OVER) == 2

    def set_over(self, *, spent: bool = False) -> None:
        self._say(_OVER, 2 if spent else 1)

    @property
    def quiet(self) -> bool:
        """Whether the supervisor wants the child to claim nothing."""
        return bool(self._word(_QUIET) & 1)

    @quiet.setter
    def quiet(self, quiet: bool) -> None:
        self._say(_QUIET, self.losses << 1 | quiet)

    @property
    def losses(self) -> int:
        """How often the supervisor has noted that the broker may have lost messages."""
        return self._word(_QUIET) >> 1

    def note_loss(self) -> None:
        self._say(_QUIET, self._word(_QUIET) + 2)

    @property
    def changes(self) -> int:
        """It is another number when the queues have changed."""
        return self._word(_CHANGES)

    def change_queues(self, added: Sequence[str], given_up: Sequence[str]) -> None:
        """Have the child claim from these queues as well, and no longer from those; both compared
        with what it was started with."""
        text = json.dumps([added, given_up], ensure_ascii=False).encode()
        begin = self._size - _NAMES
        self._say(_CHANGES, self.changes + 1)
        self._memory[begin : begin + len(text)] = text
        self._say(_NAMED, len(text))
        self._say(_CHANGES, self.changes + 1)

    def queues(self) -> tuple[int, list[str], list[str]] | None:
        """`changes`, and what `change_queues` was last given. None while that is being written."""
        changes, begin = self.changes, self._size - _NAMES
        text = bytes(self._memory[begin : begin + self._word(_NAMED)])
        if changes % 2 or changes != self.changes:
            return None
        added, given_up = json.loads(text)
        return changes, added, given_up

    def note_tasks(self, names: Sequence[str]) -> None:
        """Leave the names of the tasks that the child knows."""
        # This leaves the file's position where it is: see `take_stacks`.
        os.pwrite(self.fd, "\n".join(names).encode(errors="replace"), self._size)

    def tasks(self) -> list[str]:
        """What the child has left by `note_tasks`; only until stacks are asked for."""
        noted = os.pread(self.fd, os.fstat(self.fd).st_size, self._size)
        return noted.decode(errors="replace").split("\n")

    def take_stacks(self) -> str:
        """The stacks that the child has written since they were last taken."""
        found = os.pread(self.fd, _DUMPED, self._size)
        os.truncate(self.fd, self._size)
        # Supervisor and child share the file's position, which is where the next stacks go.
        os.lseek(self.fd, self._size, os.SEEK_SET)
        return found.decode(errors="replace")

    def begin(self, place: int, delivery: int, ends: float = math.inf, began: float = 0.0) -> None:
        # The delivery last: the supervisor may read in between.
        first = place * 4
        self._floats[first + 1] = ends
        self._words[first + 2] = 0
        self._floats[first + 3] = began
        self._words[first] = delivery

    def end(self, place: int) -> None:
        self._words[place * 4] = 0

    def condemn(self, delivery: int, now: float) -> bool:
        """Have the child killed if it is running this delivery, which was revoked. False: it is
        not."""
        for place in range(self.places):
            found = self._read(place)
            if found.delivery == delivery:
                where = place * _PLACE.size + _WORD.size
                _TIMES.pack_into(self._memory, where, now, 1, found.began)
                return True
        return False

    def running(self) -> list[Running]:
        # All in one pass: with batches there are many places, nearly all of them empty.
        places = _PLACE.iter_unpack(self._memory[: self.places * _PLACE.size])
        return [_running(*found) for found in places if found[0]]

    def _word(self, which: int) -> int:
        where = self.places * _PLACE.size + which * _WORD.size
        return int(_WORD.unpack_from(self._memory, where)[0])

    def _say(self, which: int, value: int) -> None:
        _WORD.pack_into(self._memory, self.places * _PLACE.size + which * _WORD.size, value)

    def _read(self, place: int) -> Running:
        return _running(*_PLACE.unpack_from(self._memory, place * _PLACE.size))


def size_of(places: int) -> int:
    """Bytes of a board with so many places."""
    return places * _PLACE.size + 7 * _WORD.size + _NAMES


def scratch() -> int:
    """The descriptor of a new file without a name. On Linux it is in memory, which needs no folder
    that can be written to."""
    if sys.platform == "linux":
        return os.memfd_create("jobs")
    with tempfile.TemporaryFile(prefix="jobs-") as file:
        return os.dup(file.fileno())


def _running(delivery: int, ends: float, reason: int, began: float) -> Running:
    return Running(delivery, ends, _REASONS[reason], began)
