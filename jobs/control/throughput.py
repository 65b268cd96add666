"""How fast calls come to each queue and leave it, in the last minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jobs import broker
from jobs.broker.counting import Level, Span, span_at
from jobs.control.metrics import numbers_of
from jobs.timing import clock

#: Minutes that are looked at; the last one is the present minute, which isn't over.
MINUTES = 5


class Rate(NamedTuple):
    """Calls a second."""

    came: float
    left: float


def rates(queues: Sequence[str]) -> dict[str, Rate]:
    """Queue → its rate, in one round trip. Raises `BrokerUnavailable`."""
    now = clock.now().timestamp()
    last = span_at("", Level.MINUTE, now).number
    minutes = range(last - MINUTES + 1, last + 1)
    seconds = now - minutes[0] * Level.MINUTE.seconds
    spans = [Span(queue, Level.MINUTE, number) for queue in queues for number in minutes]
    answers = iter(broker.get().counts(spans))
    found = {}
    for queue in queues:
        numbers = numbers_of([next(answers).counts for _ in minutes], Level.MINUTE, last)
        ended = numbers.succeeded + numbers.failed + numbers.revoked
        found[queue] = Rate(numbers.sent / seconds, ended / seconds)
    return found
