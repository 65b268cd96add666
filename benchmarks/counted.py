"""What ``benchmarks.budget`` counts, run by it under valgrind.

Everything is warmed up first. Each part that counts stands between two calls of `mark`: valgrind
writes what it has counted so far at each of them, and begins anew. Nothing here depends on the
clock, since all is many times slower than usual: no threads, no timers, batches of a fixed size.
"""

import gc
import math
import os
import select
import sys

import msgspec

from benchmarks.apps import jobsite  # noqa: F401 - sets Django up
from benchmarks.budget import (
    BATCH,
    BATCHES,
    REFERENCES,
    SENDS,
    WARM_BATCHES,
    WARM_REFERENCES,
    WARM_SENDS,
)
from benchmarks.tasks import kept, noop
from jobs.worker.board import Board
from jobs.worker.child import Child, Options
from jobs.worker.run import isolation

DOCUMENT = msgspec.json.encode({f"name-{n}": ["text " * 20, n, {"half": n / 2}] for n in range(12)})


def mark() -> None:
    """Call a function that nothing else calls; valgrind waits for it (``--dump-before``)."""
    os.getsid(0)


def reference(number: int) -> list[str]:
    """Do what most Python code does, and let compiled code do more: the yardstick.

    In this proportion, it differs between two builds of Python about as much as what is counted.
    """
    for _ in range(3):
        msgspec.json.encode(msgspec.json.decode(DOCUMENT))
    values = {f"name-{n}": n * number for n in range(8)}
    found = []
    for name, value in sorted(values.items(), key=lambda item: -item[1]):
        try:
            head, _, tail = name.partition("-")
            found.append(f"{head}:{int(tail) + value}")
        except ValueError:
            continue
    return [text.upper() for text in found if len(text) > 3]


class Batches:
    """A child without its threads: claims a batch, runs it, records and acknowledges it."""

    def __init__(self) -> None:
        # Nothing that is done once a second.
        isolation.database.EVERY = math.inf
        options = Options(queues=("bench",), name="counted")
        self.child = Child("counted/1", options, Board.make(options.places))
        # What the runner calls when nothing is left to run.
        self.child.recorder.flush = self._ran
        meter = self.child.recorder._meter
        if meter is not None:
            # As in the midst of a second in which this process runs ten thousand calls.
            meter._next, meter._count_before = math.inf, 10_000
        self.left = 0
        self.marked = False

    def run(self, count: int, *, marked: bool = False) -> None:
        """Run so many batches. ``marked``: mark the recording of each."""
        self.left, self.marked = count, marked
        self.child.sync._stopping = False
        self._claim()
        self.child.sync.run()

    def _claim(self) -> None:
        if self.left == 0 or not self.child.consumer._claim(BATCH):
            self.child.sync.stop()
        self.left -= 1

    def _ran(self) -> None:
        """Record the batch, and claim the next one."""
        recorder = self.child.recorder
        if self.child.sync._stopping:
            return
        if recorder.backlog != BATCH:
            raise RuntimeError(f"A batch had {recorder.backlog} calls, not {BATCH}.")
        if self.marked:
            mark()
        recorder.step()
        if self.marked:
            mark()
        self._claim()


def main() -> None:
    """Fill the queue, warm up, wait for a line on standard input, and run the parts."""
    both = WARM_BATCHES + BATCHES
    for task in (noop, kept):
        task.enqueue_many([(number,) for number in range(BATCH * both)])
    batches = Batches()
    for number in range(WARM_REFERENCES):
        reference(number)
    for number in range(WARM_SENDS):
        noop.delay(number)
    batches.run(WARM_BATCHES)
    # A collection may fall into any part.
    gc.disable()
    print("ready", flush=True)
    # Awake now and then, since valgrind takes the order to count from inside the process.
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        pass
    mark()
    for number in range(REFERENCES):
        reference(number)
    mark()
    batches.run(BATCHES)
    mark()
    batches.run(WARM_BATCHES)
    batches.run(BATCHES, marked=True)
    mark()
    for number in range(SENDS):
        noop.delay(number)
    mark()
    # Without tidying up, which nobody needs and valgrind would count.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
