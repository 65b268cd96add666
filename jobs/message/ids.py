"""Ids of calls: UUIDs of version 7 (RFC 9562, 5.7), which sort by time."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from typing import TypeGuard

#: Seconds since 1970 that no datetime can hold.
_YEAR_10000 = 253_402_300_800


#: Most characters of an id, and of each other name that is stored.
LONGEST = 255


def is_name(value: object) -> TypeGuard[str]:
    """Whether it can be stored as the id of a call or of a group, or as the name of a task."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False  # a surrogate by itself
    return True


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): ids sort by time, so rows arrive in index order."""
    global _stamp
    now, stamp = time.time_ns() // 1_000_000, _stamp
    if now != stamp[0]:
        digits = f"{now:012x}"
        stamp = _stamp = now, f"{digits[:8]}-{digits[8:]}-"
    try:
        return stamp[1] + _tails.pop()
    except IndexError:
        _tails.extend(_new_tails())
        return stamp[1] + _tails.pop()


def _new_tails() -> list[str]:
    """What follows the time in so many ids: version, variant and chance.

    Many at once, for a call of the operating system for each would be half of the cost of an id.
    """
    noise = bytearray(os.urandom(10 * 256))
    noise[0::10] = bytes(0x70 | byte & 0x0F for byte in noise[0::10])
    noise[2::10] = bytes(0x80 | byte & 0x3F for byte in noise[2::10])
    text = noise.hex()
    starts = range(0, len(text), 20)
    return [f"{text[i : i + 4]}-{text[i + 4 : i + 8]}-{text[i + 8 : i + 20]}" for i in starts]


#: Each for one id. A list's `pop` and `extend` are atomic.
_tails: list[str] = []
#: The millisecond of the last id, and its form: a bulk has many ids of one.
_stamp = (-1, "")
# What two processes would otherwise share after a fork.
os.register_at_fork(after_in_child=_tails.clear)


def id_at(milliseconds: int, noise: bytes) -> str:
    """The id of this time (since 1970) with these ten bytes where others have chance."""
    value = milliseconds << 80 | int.from_bytes(noise[:10])
    value = value & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62  # version, variant
    return str(uuid.UUID(int=value))


def derived_id(task_id: str, what: str) -> str:
    """The id of something that comes of this call: the same, however often it is asked for."""
    noise = hashlib.sha256(f"{task_id}/{what}".encode()).digest()
    made = id_time(task_id) or time.time()
    return id_at(int(made * 1000), noise)


def id_time(task_id: str) -> float | None:
    """When a version 7 id was made (seconds since 1970), or None for another kind of id."""
    if len(task_id) != 36 or task_id[14] != "7":
        return None
    try:
        seconds = int(task_id[:8] + task_id[9:13], 16) / 1000
    except ValueError:
        return None
    return seconds if 0 <= seconds < _YEAR_10000 else None
