"""What a child holds, made the same on a server that may have lost messages as it is here.

A call that runs while Redis is emptied is in flight again a moment later: nobody sends it again,
and if this process dies, others get it. The reverse is a delivery that is in flight there although
it was settled here: a replica took over that had not received how. It goes back to its queue, as if
this process had died before it settled it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from jobs import broker, conf, message
from jobs.broker.base import Returned
from jobs.broker.sharding import shown
from jobs.exceptions import BrokerUnavailable, MessageError, QueueRefused
from jobs.worker.record.outcome import Delivery
from jobs.worker.record.recorder import Recorder

log = logging.getLogger("jobs.worker")

#: Seconds after a loss in which strays may appear. Until a master that was cut off learns that
#: another has taken over, it goes on to answer; Sentinels tell it after some ten seconds.
_STRAYS = 60.0


class Holding:
    """What one consumer holds, here and on the broker."""

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
        #: Until when to look for strays (monotonic), and those that the last look found.
        self._look_until = 0.0
        self._strays: set[tuple[str, int]] = set()

    def hold_again(self, following: Mapping[str, int]) -> None:
        """Put the deliveries that are here back into flight, those that the broker has lost.

        ``following``: queue → the number of its next delivery. Raises `BrokerUnavailable`; a queue
        that the broker refuses is left alone.
        """
        self._look_until = time.monotonic() + _STRAYS
        # Which early acknowledgements have been made doesn't show from outside.
        held = [one for one in self._here() if one.held and not one.task.acks_early]
        for queue, number in following.items():
            mine = {one.number: one.raw for one in held if one.queue == queue}
            if not mine:
                continue
            with contextlib.suppress(QueueRefused):
                lease = conf.get().lease_seconds
                try:
                    lost = broker.get().hold_again(queue, self._consumer, mine, number, lease)
                except BrokerUnavailable:  # its answer may be lost
                    self._again |= {(queue, number) for number in mine}
                    raise
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
        """Acknowledge once more the messages that were put back and are settled. Call it now and
        then.

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

    def return_strays(self, following: Mapping[str, int]) -> None:
        """Give back messages that are in flight for this consumer although it has settled them. The
        thread that claims calls it now and then; without a recent loss it does nothing.

        ``following``: as for `hold_again`. Raises `BrokerUnavailable`.
        """
        if time.monotonic() > self._look_until:
            self._strays.clear()
            return
        # Of many queues, most have given this consumer nothing.
        used = [queue for queue, number in following.items() if number > 1]
        held = broker.get().numbers_held(used, self._consumer) if used else {}
        # Later numbers are those of a claim whose answer was lost, and which is repeated.
        there = {
            (name, n) for name, numbers in held.items() for n in numbers if n < following[name]
        }
        here = {(one.queue, one.number) for one in self._here()} | self._recorder.unsettled()
        found = there - here - self._again
        # Twice, as in `settle`.
        strays, self._strays = found & self._strays, found
        for queue in {queue for queue, _ in strays}:
            numbers = sorted(number for name, number in strays if name == queue)
            messages = broker.get().held_by([(queue, self._consumer, numbers)])
            pairs = zip(numbers, messages, strict=True)
            some = [_returned(number, raw) for number, raw in pairs if raw is not None]
            with contextlib.suppress(QueueRefused):
                returned = broker.get().release(queue, self._consumer, some)
                log.warning(
                    "%s: the broker has lost how %d messages of queue %s ended here; they are back "
                    "in the queue",
                    self._consumer,
                    returned,
                    shown(queue),
                )


def _returned(number: int, raw: bytes) -> Returned:
    try:
        marked, priority = message.mark_redelivered(raw, crashed=False)
    except MessageError:
        return Returned(number)  # the next worker makes it a dead letter
    return Returned(number, priority, marked)
