"""Ids of calls: UUIDs of version 7 (RFC 9562, 5.7), which sort by time."""

from __future__ import annotations

import hashlib
import os
import time
import uuid

#: Seconds since 1970 that no datetime can hold.
_YEAR_10000 = 253_402_300_800


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): ids sort by time, so rows arrive in index order."""
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    try:
        noise = _noise.pop()
    except IndexError:
        # A call of the operating system for each id would be half of its cost.
        fresh = os.urandom(10 * 256).hex()
        _noise.extend(fresh[i : i + 20] for i in range(0, len(fresh), 20))
        noise = _noise.pop()
    variant = "89ab"[int(noise[3], 16) & 3]
    return f"{stamp[:8]}-{stamp[8:]}-7{noise[:3]}-{variant}{noise[4:7]}-{noise[8:]}"


#: Random hex digits, each for one id. A list's `pop` and `extend` are atomic.
_noise: list[str] = []
# What two processes would otherwise share after a fork.
os.register_at_fork(after_in_child=_noise.clear)


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
