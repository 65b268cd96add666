"""Histograms, and how the broker's spans become numbers."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from jobs import broker
from jobs.broker.base import Found
from jobs.broker.counting import KEPT, Resolution, Span, span_at
from jobs.control import metrics
from jobs.control.metrics import LAST, Histogram, Range, bucket, upper_bound

#: In the middle of an hour and of a minute.
NOON = dt.datetime(2026, 11, 27, 12, 34, 56, tzinfo=dt.UTC).timestamp()

durations = st.floats(0, 200_000) | st.floats(0, 0.01)


def histogram(values: list[float]) -> Histogram:
    return Histogram(Counter(map(bucket, values)), sum(values))


@given(durations)
def test_a_duration_is_in_its_bucket(seconds: float) -> None:
    number = bucket(seconds)
    assert seconds <= upper_bound(number) * (1 + 1e-9)
    if number:
        assert seconds >= upper_bound(number - 1) * (1 - 1e-9)


def test_the_buckets_reach_from_a_millisecond_to_a_day() -> None:
    assert (bucket(0), bucket(0.001), bucket(0.00101)) == (0, 0, 1)
    assert bucket(86_400) == LAST - 1
    assert bucket(86_400 * 1.2) == bucket(1e12) == LAST
    assert upper_bound(LAST) == math.inf


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0, 1))
def test_a_percentile_is_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    found = histogram(values).percentile(share)
    assert found is not None
    number = bucket(true)
    below = upper_bound(number - 1) if number else 0.0
    assert below <= found <= upper_bound(number)


def test_an_empty_histogram_has_no_percentile() -> None:
    assert (Histogram().total, Histogram().mean, Histogram().percentile(0.5)) == (0, None, None)


def test_the_mean_is_exact() -> None:
    assert histogram([1, 2, 6]).mean == 3


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of this process and of its broker, which is in memory."""
    settings.JOBS = {
        "BROKER_URL": "memory://",
        "QUEUES": {"mail": {}, "slow": {}},
        "DEFAULT_QUEUE": "mail",
    }
    found = Clock()
    monkeypatch.setattr(broker.by_shard(), "_clock", found)
    monkeypatch.setattr(metrics.time, "time", found)
    return found


def put(queue: str = "mail", **counts: int) -> None:
    broker.get().count(queue, counts, {"shop.pay": counts})


def test_the_last_hour_has_sixty_minutes_with_gaps(clock: Clock) -> None:
    put(succeeded=1)
    clock.now += 600
    put(succeeded=2, w0=2)
    put("slow", failed=1, w3=1)
    found = metrics.series(Range.HOUR, now=clock.now)
    assert len(found) == 60
    assert found[-1].start == dt.datetime(2026, 11, 27, 12, 44, tzinfo=dt.UTC)
    assert [one.seconds for one in found] == [60] * 60
    assert [one.succeeded for one in found if one.succeeded] == [1, 2]
    assert [n for n, one in enumerate(found) if one.succeeded] == [49, 59]
    assert (found[-1].failed, found[-1].wait.total) == (1, 3)
    assert metrics.series(Range.HOUR, ["slow"], clock.now)[-1].succeeded == 0


@pytest.mark.parametrize(
    ("period", "spans", "seconds"),
    [
        (Range.HOUR, 60, 60),
        (Range.DAY, 144, 600),
        (Range.WEEK, 168, 3600),
        (Range.YEAR, 365, 86400),
    ],
)
def test_each_range_counts_what_lies_in_it(
    clock: Clock, period: Range, spans: int, seconds: int
) -> None:
    put(succeeded=1000)
    clock.now += spans * seconds
    put(succeeded=10)
    clock.now += (spans - 1) * seconds
    put(succeeded=1)
    found = metrics.series(period, now=clock.now)
    assert [one.succeeded for one in found if one.succeeded] == [10, 1]
    total = metrics.total(period, now=clock.now)
    assert (total.succeeded, total.seconds, total.start) == (11, spans * seconds, found[0].start)
    assert metrics.by_task(period, clock.now)["shop.pay"].succeeded == 11


@pytest.mark.parametrize("period", Range)
@pytest.mark.parametrize("into_the_day", [0, 59, 60, 600, 12 * 3600 + 1, 86_399])
def test_the_total_is_the_sum_of_the_series(clock: Clock, period: Range, into_the_day: int) -> None:
    now = (NOON // 86_400) * 86_400 + into_the_day
    seconds = period.resolution.seconds * period.spans
    for n in range(40):
        clock.now = now - seconds * 1.2 + n * seconds * 1.2 / 39
        put(succeeded=1, r3=2, run_ms=5)
    clock.now = now
    wanted = sum(one.succeeded for one in metrics.series(period))
    assert 25 < wanted < 40
    for at in (None, now):
        for found in (metrics.total(period, now=at), metrics.by_task(period, at)["shop.pay"]):
            assert (found.succeeded, found.run.total) == (wanted, 2 * wanted)
            assert found.run.seconds == pytest.approx(wanted * 0.005)


def test_numbers_of_tasks_are_kept_for_as_long_as_they_are_read() -> None:
    for period in Range:
        kept, tasks_kept = KEPT[period.resolution]
        assert min(kept, tasks_kept) >= period.resolution.seconds * (period.spans + 1)


def test_what_is_over_is_read_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = broker.get().counts

    def noted(spans: Sequence[Span]) -> list[Found]:
        asked.append(len(spans))
        return read(spans)

    monkeypatch.setattr(broker.get(), "counts", noted)
    put(succeeded=1)
    clock.now += 300
    before = metrics.series(Range.HOUR, ["mail"])
    put(succeeded=5)
    after = metrics.series(Range.HOUR, ["mail"])
    assert asked[0] == 60
    assert asked[1] <= 2
    assert [one.succeeded for one in after[:-1]] == [one.succeeded for one in before[:-1]]
    assert after[-1].succeeded == 5


def test_another_broker_has_other_numbers(clock: Clock, settings: Settings) -> None:
    put(succeeded=1)
    clock.now += 300
    assert metrics.total(Range.HOUR).succeeded == 1
    settings.JOBS = {**settings.JOBS}
    assert metrics.total(Range.HOUR).succeeded == 0


def test_numbers_since_ever(clock: Clock) -> None:
    put(succeeded=1, r0=1, run_ms=7)
    clock.now += 40 * 86_400
    put(succeeded=2)
    assert metrics.ever(["mail", "slow"])["mail"].succeeded == 3
    assert metrics.ever(["mail", "slow"])["slow"].succeeded == 0
    assert metrics.ever_by_task(["mail"])["mail"]["shop.pay"].run.seconds == 0.007


def test_a_plain_form_for_json(clock: Clock) -> None:
    put(succeeded=2, w0=2, wait_ms=1, sent=3)
    told = metrics.plain(metrics.total(Range.HOUR, now=clock.now))
    assert told["start"] == "2026-11-27T11:35:00+00:00"
    assert (told["seconds"], told["sent"], told["succeeded"], told["failed"]) == (3600, 3, 2, 0)
    assert told["wait"] == {"mean": 0.0005, "p50": 0.0005, "p95": 0.001, "p99": 0.001}
    assert told["run"] == {"mean": None, "p50": None, "p95": None, "p99": None}


def test_spans_are_numbered_from_1970_in_utc() -> None:
    assert span_at("mail", Resolution.DAY, 86_400.0).number == 1
    assert span_at("mail", Resolution.MINUTE, 86_399.9).number == 1439
    assert span_at("mail", Resolution.EVER, NOON).number == 0
