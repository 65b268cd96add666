"""What a child holds, put back into flight on a server that may have lost it.

So a call that runs while Redis is emptied is in flight again a moment later: nobody sends it again,
and if this process dies, others get it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from jobs import broker, conf
from jobs.exceptions import QueueRefused
from jobs.worker.record.outcome import Delivery
from jobs.worker.record.recorder import Recorder

log = logging.getLogger("jobs.worker")


class Holding:
    """What one consumer has put back into flight."""

    def __init__(
        self, consumer: str, here: Callable[[], Sequence[Delivery]], recorder: Recorder
    ) -> None:
        """``here``: reads what was claimed and has no outcome yet."""
        self._consumer = consumer
        self._here = here
        self._recorder = recorder
        #: Queue and number of what was put back, and isn't known to be settled since.
        self._again: set[tuple[str, int]] = set()
        #: Those of them that the last `settle` didn't find here.
        self._gone: set[tuple[str, int]] = set()

    def hold_again(self, following: Mapping[str, int]) -> None:
        """Put the deliveries that are here back into flight, those that the broker has lost.

        ``following``: queue → the number of its next delivery. Raises `BrokerUnavailable`; a queue
        that the broker refuses is left alone.
        """
        # Which early acknowledgements have been made doesn't show from outside.
        held = [one for one in self._here() if one.held and not one.task.acks_early]
        for queue, number in following.items():
            mine = {one.number: one.raw for one in held if one.queue == queue}
            if not mine:
                continue
            with contextlib.suppress(QueueRefused):
                lease = conf.get().lease_seconds
                lost = broker.get().hold_again(queue, self._consumer, mine, number, lease)
                if lost:
                    self._again |= {(queue, number) for number in mine}
                    log.warning(
                        "%s: the broker had lost %d messages of queue %s that are worked on here; "
                        "they are in flight again",
                        self._consumer,
                        lost,
                        queue,
                    )

    def settle(self) -> None:
        """Acknowledge, once more, what was put back and is settled. To be called now and then.

        The recorder may have settled a delivery after it was read and before it was put back. Then
        nobody else would take it out of flight again.
        """
        if not self._again:
            return
        here = {(one.queue, one.number) for one in self._here()} | self._recorder.unsettled()
        # Twice: on its way from a runner to the recorder, a delivery is nowhere for a moment.
        gone = self._again - here
        settled = gone & self._gone
        self._gone = gone - settled
        for queue in {queue for queue, _ in settled}:
            numbers = [number for name, number in settled if name == queue]
            with contextlib.suppress(QueueRefused):
                broker.get().ack(queue, self._consumer, numbers)
        self._again -= settled
