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
from jobs.broker.counting import OTHER, SENT, Counts, Resolution, Span, span_at

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

#: The fields of what has become of calls; `jobs.broker.counting.SENT` is that of those sent.
SUCCEEDED, FAILED, RETRIED, REVOKED = "succeeded", "failed", "retried", "revoked"

#: What the fields of a histogram's buckets begin with, and the fields of the milliseconds in all.
WAIT, RUN = "w", "r"
WAIT_MS, RUN_MS = "wait_ms", "run_ms"

#: Most spans of each kind that this process keeps, and seconds after which a span is surely over:
#: clocks differ.
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

    @classmethod
    def sum(cls, parts: Iterable[Histogram]) -> Histogram:
        buckets: Counter[int] = Counter()
        seconds = 0.0
        for part in parts:
            buckets.update(part.buckets)
            seconds += part.seconds
        return cls(buckets, seconds)

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
                    return upper_bound(LAST - 1)  # at least
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
    def resolution(self) -> Resolution:
        return _STEPS[self][0]

    @property
    def spans(self) -> int:
        """How many spans it has."""
        return _STEPS[self][1]


_STEPS = {
    Range.HOUR: (Resolution.MINUTE, 60),
    Range.DAY: (Resolution.TEN, 144),
    Range.WEEK: (Resolution.HOUR, 168),
    Range.YEAR: (Resolution.DAY, 365),
}


def series(
    period: Range, queues: Collection[str] | None = None, now: float | None = None
) -> list[Numbers]:
    """The numbers of each minute of the last hour, of each ten minutes of the last day, of each
    hour of the last week, or of each day (in UTC) of the last year; the oldest first, the present
    span last.

    ``queues``: None for all declared ones. ``now``: Unix seconds. Raises `BrokerUnavailable`.
    """
    return _numbers(_names(queues), _spans(period, now))


def total(
    period: Range, queues: Collection[str] | None = None, now: float | None = None
) -> Numbers:
    """All of `series` added up."""
    return _sum(_numbers(_names(queues), _cover(period, now)), *_bounds(period, now))


def by_task(
    period: Range,
    now: float | None = None,
    *,
    queues: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
    fields: tuple[str, ...] = (),
) -> dict[str, Numbers]:
    """Task → its numbers, over all queues. Under `OTHER` are those of tasks beyond the first 500 of
    a span, and of messages that nobody could read. Raises `BrokerUnavailable`.

    ``tasks``: those alone. ``fields``: such as "failed"; those alone are read, which is quicker.
    """
    parts: dict[str, list[Counts]] = {}
    for found in _task_counts(_names(queues), _cover(period, now), fields):
        for task in found if tasks is None else tasks:
            if counts := found.get(task):
                parts.setdefault(task, []).append(counts)
    bounds = _bounds(period, now)
    return {task: _meaning(_added(some), *bounds) for task, some in parts.items()}


def ever(queues: Collection[str]) -> dict[str, Numbers]:
    """Queue → its numbers since its first message; they never fall as long as it is used."""
    found = broker.get().counts([Span(name, *_EVER) for name in queues])
    return {
        name: _meaning(said.counts, 0, _EVER[0].seconds)
        for name, said in zip(queues, found, strict=True)
    }


def ever_by_task(queues: Collection[str]) -> dict[str, dict[str, Numbers]]:
    """Queue → task → its numbers since the queue's first message."""
    found = broker.get().task_counts([Span(name, *_EVER) for name in queues])
    return {
        name: {task: _meaning(counts, 0, _EVER[0].seconds) for task, counts in tasks.items()}
        for name, tasks in zip(queues, found, strict=True)
    }


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


# ------------------------------------------------------------------------------- which spans

#: A span of whichever queues: its resolution and number.
_When = tuple[Resolution, int]

_EVER: _When = (Resolution.EVER, 0)

#: From the longest spans to the shortest.
_LONGEST_FIRST = (Resolution.DAY, Resolution.HOUR, Resolution.TEN, Resolution.MINUTE)


def _names(queues: Collection[str] | None) -> tuple[str, ...]:
    return tuple(conf.get().queues if queues is None else queues)


def _spans(period: Range, now: float | None) -> list[_When]:
    """Each span of a range, the oldest first."""
    last = span_at("", period.resolution, time.time() if now is None else now).number
    return [(period.resolution, number) for number in range(last - period.spans + 1, last + 1)]


def _bounds(period: Range, now: float | None) -> tuple[int, int]:
    """When a range begins (Unix seconds), and how long it is."""
    (_, first), *_ = _spans(period, now)
    seconds = period.resolution.seconds
    return first * seconds, period.spans * seconds


def _cover(period: Range, now: float | None) -> list[_When]:
    """The fewest spans that make up a range: a week is some hours, and days."""
    at, seconds = _bounds(period, now)
    ends = at + seconds
    # Nothing is later than the present, so a span may reach beyond it.
    reach = math.inf if now is None else ends
    found = []
    while at < ends:
        best = next(
            one for one in _LONGEST_FIRST if at % one.seconds == 0 and at + one.seconds <= reach
        )
        found.append((best, at // best.seconds))
        at += best.seconds
    return found


# ----------------------------------------------------------------------------------- reading


class _Kept:
    """What was read of one broker about spans that are over: it doesn't change any more."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[_When, tuple[str, ...]], Numbers] = {}
        #: Of a span, queues and fields: task → its fields, the queues together.
        self.tasks: dict[tuple[_When, tuple[str, ...], tuple[str, ...]], Mapping[str, Counts]] = {}


#: Of each broker: another one has other numbers.
_kept: weakref.WeakKeyDictionary[Broker, _Kept] = weakref.WeakKeyDictionary()


def _numbers(queues: tuple[str, ...], whens: Sequence[_When]) -> list[Numbers]:
    """The numbers of each of these spans, the queues together."""
    kept = _kept.setdefault(broker.get(), _Kept()).numbers
    found = {when: kept[when, queues] for when in whens if (when, queues) in kept}
    missing = [when for when in whens if when not in found]
    answers = iter(broker.get().counts([Span(name, *when) for when in missing for name in queues]))
    for when in missing:
        parts = [next(answers) for _ in queues]
        resolution, number = when
        counts = _added([part.counts for part in parts])
        found[when] = _meaning(counts, number * resolution.seconds, resolution.seconds)
        if all(part.settled for part in parts) and _is_over(when):
            kept[when, queues] = found[when]
    _drop_oldest(kept)
    return [found[when] for when in whens]


def _task_counts(
    queues: tuple[str, ...], whens: Sequence[_When], fields: tuple[str, ...]
) -> list[Mapping[str, Counts]]:
    """Of each of these spans, task → its fields. They are kept as they come: to make `Numbers` of
    each task and span would take longer than to read them."""
    kept = _kept.setdefault(broker.get(), _Kept()).tasks
    found = {when: kept[when, queues, fields] for when in whens if (when, queues, fields) in kept}
    missing = [when for when in whens if when not in found]
    spans = [Span(name, *when) for when in missing for name in queues]
    answers = iter(broker.get().task_counts(spans, fields))
    for when in missing:
        parts: dict[str, list[Counts]] = {}
        for _ in queues:
            for task, counts in next(answers).items():
                parts.setdefault(task, []).append(counts)
        found[when] = {task: _added(some) for task, some in parts.items()}
        if _is_over(when):
            kept[when, queues, fields] = found[when]
    _drop_oldest(kept)
    return [found[when] for when in whens]


def _is_over(when: _When) -> bool:
    resolution, number = when
    return (number + 1) * resolution.seconds + _OVER < time.time()


def _drop_oldest(kept: dict[Any, Any]) -> None:
    # `list` reads the keys at once: other threads may put in more meanwhile.
    for key in list(kept)[: max(0, len(kept) - _KEPT)]:
        kept.pop(key, None)


def _added(parts: Sequence[Counts]) -> Counts:
    """The fields of all these; those of the same name add up."""
    if len(parts) == 1:
        return parts[0]
    counts: dict[str, int] = {}
    for part in parts:
        for field, count in part.items():
            counts[field] = counts.get(field, 0) + count
    return counts


def _meaning(counts: Counts, start: int, seconds: int) -> Numbers:
    """What these fields of the broker stand for."""
    buckets: dict[str, dict[int, int]] = {WAIT: {}, RUN: {}}
    for field, count in counts.items():
        if field[1:].isdecimal() and field[0] in buckets:
            buckets[field[0]][int(field[1:])] = count
    return Numbers(
        dt.datetime.fromtimestamp(start, dt.UTC),
        seconds,
        counts.get(SENT, 0),
        counts.get(SUCCEEDED, 0),
        counts.get(FAILED, 0),
        counts.get(RETRIED, 0),
        counts.get(REVOKED, 0),
        Histogram(buckets[WAIT], counts.get(WAIT_MS, 0) / 1000),
        Histogram(buckets[RUN], counts.get(RUN_MS, 0) / 1000),
    )


def _sum(parts: Sequence[Numbers], start: int, seconds: int) -> Numbers:
    return Numbers(
        dt.datetime.fromtimestamp(start, dt.UTC),
        seconds,
        sum(part.sent for part in parts),
        sum(part.succeeded for part in parts),
        sum(part.failed for part in parts),
        sum(part.retried for part in parts),
        sum(part.revoked for part in parts),
        Histogram.sum(part.wait for part in parts),
        Histogram.sum(part.run for part in parts),
    )
