"""What the tasks of every system do. It must cost next to nothing, and the same for all of them."""

import os
import time
from pathlib import Path

#: Every task whose number is a multiple of this leaves a stamp; so does none when it is 0.
STRIDE = int(os.environ.get("BENCH_STRIDE", "0"))

_stamps: int | None = None


def noop(number: int) -> None:
    """Do nothing, but let every STRIDE-th call leave a stamp of its number and time."""
    if STRIDE and number % STRIDE == 0:
        leave_stamp(number)


def echo(number: int) -> int:
    """Return something, for the measure of a round trip."""
    return number


def stamp(expected_ns: int) -> None:
    """Leave a stamp: when this call was meant to start, and when it did."""
    leave_stamp(expected_ns)


def leave_stamp(mark: int) -> None:
    """Append ``mark`` and the time in nanoseconds to the file of stamps.

    One short write on a file opened for appending is atomic, so processes need no lock.
    """
    global _stamps
    now = time.time_ns()
    if _stamps is None:
        path = os.environ["BENCH_STAMPS"]
        _stamps = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_stamps, b"%d %d\n" % (mark, now))


def read_stamps(path: Path) -> list[tuple[int, int]]:
    """Return every stamp as (mark, time in ns), in the order in which they were left."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [(int(mark), int(moment)) for mark, _, moment in (line.partition(" ") for line in lines)]
