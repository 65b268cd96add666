"""Tasks that are acknowledged before they run (``acks="early"``)."""

from __future__ import annotations

import time

from jobs import broker
from jobs.exceptions import BrokerUnavailable
from jobs.worker.claim import admission
from jobs.worker.record.outcome import (
    Delivery,
    Kind,
    Outcome,
)


def lost(delivery: Delivery) -> Outcome:
    """Somebody else has it, and with it what it held."""
    admission.lose(delivery.slots)
    return Outcome(Kind.DONE, delivery.queue, delivery.number, held=False, failed=True)


def ack_early(delivery: Delivery, consumer: str) -> bool:
    """Acknowledge a delivery before it runs: from here on it can be lost, and can't be run twice.
    False: somebody else has it."""
    while True:
        try:
            return bool(broker.get().ack(delivery.queue, consumer, [delivery.number]))
        except BrokerUnavailable:
            time.sleep(1.0)  # the supervisor says that it is away
