"""What a child holds, put back into flight on a server that may have lost it.

So a call that runs while Redis is emptied is in flight again a moment later: nobody sends it again,
and if this process dies, others get it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from jobs import broker, conf
from jobs.exceptions import QueueRefused
from jobs.worker.record.outcome import Delivery
from jobs.worker.record.recorder import Recorder

log = logging.getLogger("jobs.worker")

#: On its way from a runner to the recorder, a delivery is nowhere for a moment. Seconds after which
#: it has arrived.
_PASSING = 0.05


def hold_again(
    consumer: str,
    following: Mapping[str, int],
    here: Callable[[], Sequence[Delivery]],
    recorder: Recorder,
) -> None:
    """Put the deliveries that a consumer works on back into flight, those that the broker has lost.

    ``following``: queue → the number of its next delivery. ``here``: reads what was claimed and has
    no outcome yet. Raises `BrokerUnavailable`; a queue that the broker refuses is left alone.
    """
    # Which early acknowledgements have been made doesn't show from outside.
    held = [one for one in here() if one.held and not one.task.acks_early]
    for queue, number in following.items():
        mine = {one.number: one.raw for one in held if one.queue == queue}
        if not mine:
            continue
        with contextlib.suppress(QueueRefused):
            lease = conf.get().lease_seconds
            lost = broker.get().hold_again(queue, consumer, mine, number, lease)
            if not lost:
                continue
            log.warning(
                "%s: the broker had lost %d messages of queue %s that are worked on here; they "
                "are in flight again",
                consumer,
                lost,
                queue,
            )
            # The recorder may have settled some of them since they were read: nobody would take
            # those out of flight again.
            settled = set(mine)
            for _again in range(2):
                settled -= {one.number for one in here() if one.queue == queue}
                settled -= {at for name, at in recorder.unsettled() if name == queue}
                if not settled:
                    break
                time.sleep(_PASSING)
            else:
                broker.get().ack(queue, consumer, list(settled))
