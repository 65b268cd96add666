"""How fast calls come to each queue and leave it, in the last minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jobs import broker
from jobs.broker.counting import SENT, Resolution, Span, span_at
from jobs.control.metrics import FAILED, REVOKED, SUCCEEDED
from jobs.timing import clock

#: Minutes that are looked at; the last one is the present minute, which isn't over.
MINUTES = 5

#: The fields of calls that have ended.
_ENDED = (SUCCEEDED, FAILED, REVOKED)


class Rate(NamedTuple):
    """Calls a second."""

    came: float
    left: float


def rates(queues: Sequence[str]) -> dict[str, Rate]:
    """Queue → its rate, in one round trip. Raises `BrokerUnavailable`."""
    now = clock.now().timestamp()
    last = span_at("", Resolution.MINUTE, now).number
    minutes = range(last - MINUTES + 1, last + 1)
    seconds = now - minutes[0] * Resolution.MINUTE.seconds
    spans = [Span(queue, Resolution.MINUTE, number) for queue in queues for number in minutes]
    answers = iter(broker.get().counts(spans))
    found = {}
    for queue in queues:
        counts = [next(answers).counts for _ in minutes]
        came = sum(one.get(SENT, 0) for one in counts)
        left = sum(one.get(name, 0) for one in counts for name in _ENDED)
        found[queue] = Rate(came / seconds, left / seconds)
    return found
