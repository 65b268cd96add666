"""What a broker counts: how many calls were sent and what became of them, by spans of time.

Each number is kept at several resolutions, so that nobody has to add up a year's minutes. A broker
knows only one field, `SENT`; `jobs.control.metrics` has the meaning of the others.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple


class Resolution(enum.StrEnum):
    """How finely time is divided. Spans are numbered from 1970 on, in UTC."""

    MINUTE = "minute"
    TEN = "ten"
    HOUR = "hour"
    DAY = "day"
    #: One span for all time.
    EVER = "ever"

    @property
    def seconds(self) -> int:
        return SECONDS[self]


#: The length of a span.
SECONDS = {
    Resolution.MINUTE: 60,
    Resolution.TEN: 600,
    Resolution.HOUR: 3600,
    Resolution.DAY: 86_400,
    Resolution.EVER: 10**12,
}

_DAY = 86_400

#: For how long, in seconds, a span is kept after its last change; and the numbers of its tasks.
KEPT = {
    Resolution.MINUTE: (8 * _DAY, 7200),
    Resolution.TEN: (8 * _DAY, 2 * _DAY),
    Resolution.HOUR: (8 * _DAY, 8 * _DAY),
    Resolution.DAY: (400 * _DAY, 400 * _DAY),
    Resolution.EVER: (400 * _DAY, 400 * _DAY),
}

#: Most tasks of one span that have numbers of their own.
TASKS = 500

#: The task of calls beyond these, and of messages whose task nobody can read.
OTHER = ""

#: The field of messages that were put on the queue.
SENT = "sent"

#: Field → number.
Counts = Mapping[str, int]


class Span(NamedTuple):
    """One span of a queue."""

    queue: str
    resolution: Resolution
    number: int


def span_at(queue: str, resolution: Resolution, now: float) -> Span:
    """The span in which this moment lies (Unix seconds)."""
    return Span(queue, resolution, int(now // SECONDS[resolution]))
