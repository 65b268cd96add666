"""What `runworker` was asked for, as one value that the supervisor hands to its children."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import conf
from jobs.exceptions import ConfigurationError
from jobs.registry import tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    #: Claimed from in this order.
    queues: tuple[str, ...]
    name: str
    #: Child processes.
    processes: int = 1
    #: Threads for synchronous tasks in each child; 0: its main thread.
    threads: int = 0
    #: ``async def`` tasks at once in each child.
    concurrency: int = 100
    #: Seconds, for tasks that have no limits of their own; None: no limit.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: End when the queues are empty.
    burst: bool = False
    reload: bool = False
    #: Touched after each renewal of the leases while a child claims messages, and removed at the
    #: end; empty: no file.
    health_file: str = ""
    #: Most calls of one batch: those of the tasks that the supervisor knows.
    batch: int = dataclasses.field(default_factory=lambda: largest_batch())

    def __post_init__(self) -> None:
        declared = conf.get().queues
        for queue in self.queues:
            if queue not in declared:
                raise ConfigurationError(
                    f"Queue {queue!r} is not declared in JOBS['QUEUES']."
                    f"{conf.nearest(queue, declared)}"
                )
        for limit in (self.time_limit, self.soft_time_limit):
            if limit is not None and limit <= 0:
                raise ConfigurationError(f"A time limit must be more than 0 s, not {limit:g}.")
        if self.health_file and not Path(self.health_file).absolute().parent.is_dir():
            raise ConfigurationError(f"There is no folder for the file {self.health_file!r}.")
        if self.processes < 1 or self.threads < 0 or self.concurrency < 1:
            raise ConfigurationError(
                "A worker needs at least 1 process, 0 threads and a concurrency of 1."
            )

    @property
    def places(self) -> int:
        """How many calls a child can run at once: the size of its board."""
        return max(1, self.threads) * self.batch + self.concurrency

    def dumps(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Options:
        values = json.loads(text)
        return cls(**values | {"queues": tuple(values["queues"])})


def largest_batch() -> int:
    """Most calls of one batch, of all tasks known here; 1: there are no batches."""
    return max((task.batch for task in tasks.values()), default=0) or 1


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def default_name() -> str:
    return f"worker-{os.getpid()}@{socket.gethostname()}"[:200]


def split(queues: str) -> Sequence[str]:
    """Names of a comma-separated list; empty: all that are declared."""
    named = [name.strip() for name in queues.split(",") if name.strip()]
    return named or list(conf.get().queues)
