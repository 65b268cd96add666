"""What the machine gives a process: cores and memory."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

#: Where Linux shows its control groups, and what it says of this process.
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """How many cores this process may use: those of the machine that it may run on, or fewer if its
    container or service is limited to less. A limit of 2.5 cores counts as 3."""
    usable: int | None
    if sys.version_info >= (3, 13):
        usable = os.process_cpu_count()
    elif sys.platform == "linux":
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count()
    return max(1, min([usable or 1, *map(math.ceil, _limits())]))


def memory_of(pid: int) -> int:
    """Bytes that a process has in memory; 0 where the machine doesn't tell."""
    try:
        resident = Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]
    except (OSError, ValueError, IndexError):
        return 0
    return int(resident) * os.sysconf("SC_PAGE_SIZE")


def own_memory() -> int:
    """Bytes that this process has in memory; on macOS, the most that it has had."""
    found = memory_of(os.getpid())
    return found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _limits() -> Iterator[float]:
    """The limits, in cores, of the control groups that this process is in."""
    try:
        lines = _OWN_GROUPS.read_text("utf-8").splitlines()
    except OSError:  # another system than Linux
        return
    for line in lines:
        # The number of a tree, its controllers, and the place of this process in it. Version 2 has
        # one tree, without names of controllers.
        _, controllers, place = line.split(":", 2)
        if not controllers:
            tree, files = _GROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            tree, files = _GROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        # A group has the limits of those above it as well. In a container the place may be that on
        # the host, which isn't there; its own group is the root then.
        within = PurePosixPath(place.lstrip("/"))
        for group in (within, *within.parents):
            # "max", or -1 in version 1, is no limit; the root of a machine has no files.
            with contextlib.suppress(OSError, ValueError):
                texts = [(tree / group / file).read_text("ascii") for file in files]
                quota, period = map(int, " ".join(texts).split())
                if quota > 0 < period:
                    yield quota / period
