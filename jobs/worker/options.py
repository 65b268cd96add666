"""What `runworker` was asked for, as one value that the supervisor hands to its children."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from jobs import conf, message
from jobs.exceptions import ConfigurationError, shown
from jobs.registry import tasks

#: How a worker can take from several queues: `jobs.worker.claim.consumer.Order`.
ORDERS = ("strict", "weighted", "round-robin")

_HEAVIEST = 1000

#: Of a worker's name: the ledger's column has 255, and a child's adds its number.
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    queues: tuple[str, ...]
    name: str
    #: Of each queue: its share of what is claimed, while the others have messages as well. None:
    #: the queues are claimed from in their order.
    weights: tuple[int, ...] = ()
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
            if not conf.get().knows(queue):
                raise ConfigurationError(
                    f"Queue {queue!r} is not declared in JOBS['QUEUES']."
                    f"{conf.nearest(queue, declared)}"
                )
        if len(set(self.queues)) < len(self.queues):
            raise ConfigurationError(f"A queue is named twice: {', '.join(self.queues)}.")
        if self.weights and len(self.weights) != len(self.queues):
            raise ConfigurationError("Either each queue of a worker has a weight, or none has.")
        if any(weight not in range(1, _HEAVIEST + 1) for weight in self.weights):
            raise ConfigurationError(f"A queue's weight is a whole number from 1 to {_HEAVIEST}.")
        for limit in (self.time_limit, self.soft_time_limit):
            if limit is not None and limit <= 0:
                raise ConfigurationError(f"A time limit must be more than 0 s, not {limit:g}.")
        if self.health_file and not Path(self.health_file).absolute().parent.is_dir():
            raise ConfigurationError(f"There is no folder for the file {self.health_file!r}.")
        if len(self.name) > _LONGEST_NAME or not message.is_name(self.name):
            raise ConfigurationError(
                f"A worker's name is a text of 1 to {_LONGEST_NAME} characters that the ledger can "
                f"keep, not {shown(self.name, 60)} of {len(self.name)}: give another --name."
            )
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
        tuples = {name: tuple(values[name]) for name in ("queues", "weights")}
        return cls(**values | tuples)


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


def split(queues: str, order: str = "") -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and weights of a comma-separated list such as ``high:6,default:3,low``; empty: all
    queues that are declared. ``order``: one of `ORDERS`, or empty: weighted if a weight is named.

    Raises `ConfigurationError` for weights together with another order.
    """
    texts = [text.strip() for text in queues.split(",") if text.strip()]
    found = [_weighed(text) for text in texts] or [(name, 0) for name in conf.get().queues]
    names, weights = tuple(name for name, _ in found), tuple(weight for _, weight in found)
    if any(weights) and order not in ("", "weighted"):
        raise ConfigurationError(f"Weights are given, and the order {order!r}; give one of them.")
    if any(weights) or order in ("weighted", "round-robin"):
        return names, tuple(weight or 1 for weight in weights)
    return names, ()


def _weighed(text: str) -> tuple[str, int]:
    """A queue's name and its weight, 0 where none is written."""
    name, colon, weight = text.rpartition(":")
    if not colon or text in conf.get().queues:
        return text, 0
    if not weight.strip().isdecimal() or int(weight) == 0:
        raise ConfigurationError(
            f"The weight of queue {name.strip()!r} must be a whole number from 1, not "
            f"{weight.strip()!r}."
        )
    return name.strip(), int(weight)
