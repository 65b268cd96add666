"""The numbers of the last hour, day, week or year: what was sent, how it ended, and how long it
took. Workers write them with their batches (`jobs.worker.record.metering`); the broker keeps them.

Spans that are over never change, so this process keeps those it has read.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
import time
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jobs import broker, conf
from jobs.broker.base import Broker
from jobs.broker.counting import OTHER, SENT, Counts, Level, Span, span_at

__all__ = [
    "OTHER",
    "Histogram",
    "Numbers",
    "Range",
    "by_task",
    "ever",
    "ever_by_task",
    "plain",
    "series",
    "total",
]

#: The shortest duration that a histogram tells apart, and the longest, in seconds.
SHORTEST, LONGEST = 0.001, 86_400.0

#: Buckets for each doubling of the duration: a bucket is 19 % wide.
_PER_DOUBLING = 4

#: The bucket of all that is longer than `LONGEST`.
LAST = math.ceil(math.log2(LONGEST / SHORTEST) * _PER_DOUBLING) + 1

#: What the fields of a histogram's buckets begin with, and the fields of the milliseconds in all.
WAIT, RUN = "w", "r"
WAIT_MS, RUN_MS = "wait_ms", "run_ms"

#: Most spans that this process keeps, and seconds after which a span is surely over: clocks differ.
_KEPT, _OVER = 20_000, 60.0


def bucket(seconds: float) -> int:
    """The number of the bucket of a duration; bucket 0 has all up to `SHORTEST`."""
    if seconds <= SHORTEST:
        return 0
    return min(LAST, math.ceil(math.log2(seconds / SHORTEST) * _PER_DOUBLING))


def upper_bound(number: int) -> float:
    """The longest duration of a bucket, in seconds."""
    return math.inf if number >= LAST else SHORTEST * 2.0 ** (number / _PER_DOUBLING)


class Histogram:
    """How many durations there were of each length."""

    def __init__(self, buckets: Mapping[int, int] | None = None, seconds: float = 0.0) -> None:
        """``buckets``: number of the bucket → how many. ``seconds``: all durations together."""
        self.buckets = dict(sorted((buckets or {}).items()))
        self.seconds = seconds

    @property
    def total(self) -> int:
        return sum(self.buckets.values())

    @property
    def mean(self) -> float | None:
        return self.seconds / self.total if self.total else None

    def percentile(self, share: float) -> float | None:
        """The duration, in seconds, that this share of all (0 to 1) doesn't exceed, as exactly as
        the buckets tell; None when there are none."""
        wanted, seen = max(1, math.ceil(share * self.total)), 0
        for number, count in self.buckets.items():
            seen += count
            if seen >= wanted:
                if number >= LAST:
                    return LONGEST
                upper = upper_bound(number)
                lower = upper_bound(number - 1) if number else 0.0
                return lower + (upper - lower) * (wanted - seen + count) / count
        return None


class Numbers(NamedTuple):
    """What happened in one span of time, on some queues or to one task."""

    start: dt.datetime
    #: The length of the span.
    seconds: int
    #: Messages put on the queues. (0 of a single task: the broker doesn't read messages.)
    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    #: Attempts that failed and are followed by another.
    retried: int = 0
    revoked: int = 0
    #: From being due, or sent, to the start of an attempt.
    wait: Histogram = Histogram()
    #: From the start of an attempt to its end.
    run: Histogram = Histogram()


class Range(enum.StrEnum):
    """How far back to look."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    YEAR = "year"

    @property
    def level(self) -> Level:
        return _STEPS[self][0]

    @property
    def spans(self) -> int:
        """How many spans it has."""
        return _STEPS[self][1]


_STEPS = {
    Range.HOUR: (Level.MINUTE, 60),
    Range.DAY: (Level.TEN, 144),
    Range.WEEK: (Level.HOUR, 168),
    Range.YEAR: (Level.DAY, 365),
}


def series(
    period: Range, queues: Collection[str] | None = None, now: float | None = None
) -> list[Numbers]:
    """The numbers of each minute of the last hour, of each ten minutes of the last day, of each
    hour of the last week, or of each day (in UTC) of the last year; the oldest first, the present
    span last.

    ``queues``: None for all declared ones. ``now``: Unix seconds. Raises `BrokerUnavailable`.
    """
    spans = _spans(period, queues, now)
    found = _read([span for some in spans.values() for span in some])
    return [
        numbers_of((found[span] for span in some), period.level, number)
        for number, some in spans.items()
    ]


def total(
    period: Range, queues: Collection[str] | None = None, now: float | None = None
) -> Numbers:
    """All of `series` added up."""
    spans = _spans(period, queues, now)
    found = _read([span for some in spans.values() for span in some])
    return _sum(found.values(), period, min(spans))


def by_task(
    period: Range, now: float | None = None, *, queues: Collection[str] | None = None
) -> dict[str, Numbers]:
    """Task → its numbers. Under `OTHER` are those of tasks beyond the first 500 of a span, and of
    messages that nobody could read. Raises `BrokerUnavailable`."""
    spans = _spans(period, queues, now)
    parts: dict[str, list[Counts]] = {}
    for tasks in _read_tasks([span for some in spans.values() for span in some]):
        for task, counts in tasks.items():
            parts.setdefault(task, []).append(counts)
    return {task: _sum(some, period, min(spans)) for task, some in parts.items()}


def ever(queue: str) -> Numbers:
    """The numbers of a queue since its first message; they never fall as long as it is used."""
    span = Span(queue, Level.EVER, 0)
    return numbers_of([broker.get().counts([span])[0].counts], Level.EVER, 0)


def ever_by_task(queue: str) -> dict[str, Numbers]:
    """Task → its numbers since the queue's first message."""
    (tasks,) = broker.get().task_counts([Span(queue, Level.EVER, 0)])
    return {task: numbers_of([counts], Level.EVER, 0) for task, counts in tasks.items()}


def numbers_of(parts: Iterable[Counts], level: Level, number: int) -> Numbers:
    """What the broker's fields mean; fields of the same name are added up."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part)
    buckets: dict[str, dict[int, int]] = {WAIT: {}, RUN: {}}
    for field, count in counts.items():
        if field[1:].isdecimal() and field[0] in buckets:
            buckets[field[0]][int(field[1:])] = count
    return Numbers(
        dt.datetime.fromtimestamp(number * level.seconds, dt.UTC),
        level.seconds,
        counts[SENT],
        counts["succeeded"],
        counts["failed"],
        counts["retried"],
        counts["revoked"],
        Histogram(buckets[WAIT], counts[WAIT_MS] / 1000),
        Histogram(buckets[RUN], counts[RUN_MS] / 1000),
    )


def plain(numbers: Numbers) -> dict[str, Any]:
    """Numbers as JSON has them. Durations are in seconds, None when there were none."""
    return {
        "start": numbers.start.isoformat(),
        "seconds": numbers.seconds,
        "sent": numbers.sent,
        "succeeded": numbers.succeeded,
        "failed": numbers.failed,
        "retried": numbers.retried,
        "revoked": numbers.revoked,
        "wait": _plain(numbers.wait),
        "run": _plain(numbers.run),
    }


def _plain(histogram: Histogram) -> dict[str, float | None]:
    return {
        "mean": histogram.mean,
        "p50": histogram.percentile(0.5),
        "p95": histogram.percentile(0.95),
        "p99": histogram.percentile(0.99),
    }


def _sum(parts: Iterable[Counts], period: Range, first: int) -> Numbers:
    seconds = period.level.seconds * period.spans
    return numbers_of(parts, period.level, first)._replace(seconds=seconds)


def _spans(
    period: Range, queues: Collection[str] | None, now: float | None
) -> dict[int, list[Span]]:
    """Number of a span → the span of each queue, the oldest first."""
    names = conf.get().queues if queues is None else queues
    level = period.level
    last = span_at("", level, time.time() if now is None else now).number
    numbers = (last - n for n in reversed(range(period.spans)))
    return {number: [Span(name, level, number) for name in names] for number in numbers}


class _Kept:
    """Spans of one broker that are over, as they were read: they don't change any more."""

    def __init__(self) -> None:
        self.counts: dict[Span, Counts] = {}
        self.tasks: dict[Span, Mapping[str, Counts]] = {}


#: Of each broker: another one has other numbers.
_kept: weakref.WeakKeyDictionary[Broker, _Kept] = weakref.WeakKeyDictionary()


def _read(spans: Sequence[Span]) -> dict[Span, Counts]:
    kept = _kept.setdefault(broker.get(), _Kept()).counts
    found = {span: kept[span] for span in spans if span in kept}
    missing = [span for span in spans if span not in found]
    for span, (counts, settled) in zip(missing, broker.get().counts(missing), strict=True):
        found[span] = counts
        if settled and _is_over(span):
            kept[span] = counts
    _drop_oldest(kept)
    return found


def _read_tasks(spans: Sequence[Span]) -> list[Mapping[str, Counts]]:
    kept = _kept.setdefault(broker.get(), _Kept()).tasks
    found = {span: kept[span] for span in spans if span in kept}
    missing = [span for span in spans if span not in found]
    for span, tasks in zip(missing, broker.get().task_counts(missing), strict=True):
        found[span] = tasks
        if _is_over(span):
            kept[span] = tasks
    _drop_oldest(kept)
    return list(found.values())


def _is_over(span: Span) -> bool:
    return (span.number + 1) * span.level.seconds + _OVER < time.time()


def _drop_oldest(kept: dict[Span, Any]) -> None:
    # `list` reads the keys at once: other threads may put in more meanwhile.
    for span in list(kept)[: max(0, len(kept) - _KEPT)]:
        kept.pop(span, None)
