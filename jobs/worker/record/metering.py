"""Counts the outcomes of one child, and adds them to the broker's numbers about once a second.

What this costs a task must stay far below a microsecond, so most work is done once a batch. A child
that is killed, or a broker that goes away, loses the numbers of the last second.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence

from jobs import broker
from jobs.broker.counting import OTHER, TASKS
from jobs.broker.sharding import queue_of
from jobs.control.metrics import LAST, RUN, RUN_MS, WAIT, WAIT_MS, bucket
from jobs.exceptions import BrokerUnavailable
from jobs.message import Message, id_time
from jobs.worker.record.outcome import Outcome

log = logging.getLogger("jobs.worker")

#: Seconds between two sends.
EVERY = 1.0
#: About how many outcomes of one second have their times measured. When there are more, one of two
#: is, or one of three, and so on, and counts as often: a measurement takes some microseconds.
MEASURED = 100

#: The field of each bucket.
_WAITS = [f"{WAIT}{number}" for number in range(LAST + 1)]
_RUNS = [f"{RUN}{number}" for number in range(LAST + 1)]


class Meter:
    """The numbers that are not sent yet. One thread uses it."""

    def __init__(self) -> None:
        #: Queue → task → its numbers.
        self._queues: dict[str, dict[str, Counter[str]]] = {}
        #: When the next send may be (monotonic).
        self._next = 0.0
        #: How many outcomes were counted since the last send, and before it.
        self._count = self._count_before = 0
        self._failing = False

    @property
    def pending(self) -> bool:
        return bool(self._queues)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count these outcomes, which are recorded now."""
        keys = [(o.queue, o.call.task if o.call else OTHER, o.counts) for o in outcomes]
        # Mostly all are alike, which takes a third of the time to see.
        alike = bool(keys) and keys.count(keys[0]) == len(keys)
        counts = {keys[0]: len(keys)} if alike else Counter(keys)
        for (shard, task, what), count in counts.items():
            if what:
                self._of(queue_of(shard), task)[what] += count
        self._count += len(outcomes)
        step = 1 + max(self._count, self._count_before) // MEASURED
        first = random.randrange(step) if step > 1 else 0  # noqa: S311
        for o in outcomes[first::step]:
            if o.call is not None and o.over:
                counter = self._of(queue_of(o.queue), o.call.task)
                if (waiting := since(o.call)) is not None:
                    _measure(counter, _WAITS, WAIT_MS, o.began - waiting, step)
                _measure(counter, _RUNS, RUN_MS, o.over - o.began, step)

    def send(self, now: float | None = None) -> None:
        """Send what is pending, if ``now`` (monotonic seconds) isn't too soon after the last time;
        None: in any case."""
        if not self._queues or (now is not None and now < self._next):
            return
        queues, self._queues = self._queues, {}
        self._count_before, self._count = self._count, 0
        try:
            with broker.get().briefly(insist=False):
                for queue, tasks in queues.items():
                    everything = Counter[str]()
                    for counter in tasks.values():
                        everything.update(counter)
                    broker.get().count(queue, everything, tasks)
        except BrokerUnavailable as error:
            # Not repeated: they may have been counted.
            if not self._failing:
                log.warning("numbers for the metrics are lost, the tasks go on: %s", error)
            self._failing = True
        except Exception:
            if not self._failing:
                log.exception("numbers for the metrics are lost, the tasks go on")
            self._failing = True
        else:
            if self._failing:
                log.warning("numbers for the metrics are sent again")
            self._failing = False
        self._next = time.monotonic() + EVERY

    def _of(self, queue: str, task: str) -> Counter[str]:
        tasks = self._queues.setdefault(queue, {})
        if task not in tasks and len(tasks) >= TASKS:
            task = OTHER
        return tasks.setdefault(task, Counter())


def since(call: Message) -> float | None:
    """Since when a call has been waiting (Unix seconds): it was sent, or became due. None: its
    message doesn't tell, or it is not the first of this attempt."""
    if call.marks.redelivered:
        return None
    sent = None if call.attempt > 1 else id_time(call.id)
    due = call.eta.timestamp() if call.eta else None
    return max((at for at in (sent, due) if at is not None), default=None)


def _measure(
    counter: Counter[str], fields: Sequence[str], total: str, seconds: float, times: int
) -> None:
    seconds = max(0.0, seconds)
    counter[fields[bucket(seconds)]] += times
    counter[total] += round(seconds * 1000) * times
