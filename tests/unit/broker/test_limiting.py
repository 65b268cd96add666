"""How rates are written, and when their permits are due."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from jobs.broker.limiting import (
    Bucket,
    Rate,
    ask,
    at_rate,
    parse,
)

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("100/s", Rate(0.01, 10)),
        ("100/m", Rate(0.6, 1)),
        ("60/h", Rate(60.0, 1)),
        ("2.5 / s", Rate(0.4, 1)),
        ("10", Rate(0.1, 1)),
        (10, Rate(0.1, 1)),
        (0.5, Rate(2.0, 1)),
    ],
)
def test_as_celery_writes_them(rate: Any, expected: Rate) -> None:
    assert parse(rate) == (pytest.approx(expected.interval), expected.burst)


def test_a_burst_of_its_own() -> None:
    assert parse("100/m", 30).burst == 30


@pytest.mark.parametrize(
    ("rate", "burst", "told"),
    [
        ("100/d", None, "rate_limit must be like '100/s', '100/m', '100/h'"),
        ("fast", None, "not 'fast'"),
        ("-1/s", None, "not '-1/s'"),
        ("", None, "not ''"),
        ("0/s", None, "None is no limit"),
        (0, None, "None is no limit"),
        (float("nan"), None, "None is no limit"),
        (True, None, "not True"),
        ([1], None, r"not \[1\]"),
        ("1/s", 0, "burst must be at least 1, not 0"),
        ("1/s", 1.5, "burst must be a whole number, not 1.5"),
        ("1/s", True, "burst must be a whole number, not True"),
    ],
)
def test_what_is_no_rate(rate: Any, burst: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        parse(rate, burst)


def granted(rate: Rate, arrivals: list[float]) -> list[float]:
    """When permits are given to those who come at these times, and come back when they are told."""
    bucket, given = Bucket(), []
    waiting = [(at, 0.0) for at in arrivals]
    while waiting:
        waiting.sort()
        (now, before), *waiting = waiting
        bucket, permit = ask(bucket, rate, before, now)
        if permit.wait:
            waiting.append((permit.at, permit.at))
        else:
            given.append(now)
    return given


def test_all_at_once_get_the_burst_then_one_an_interval() -> None:
    given = granted(Rate(10.0, 3), [NOW] * 6)
    # Those that wait begin with two thirds of the burst in hand.
    first = NOW + 10 + 20 * 2 / 3
    assert given == pytest.approx([NOW] * 3 + [first, first + 10, first + 20])


def test_what_was_not_used_is_kept_up_to_the_burst() -> None:
    given = granted(Rate(10.0, 2), [NOW] * 2 + [NOW + 100] * 3)
    assert given == pytest.approx([NOW, NOW, NOW + 100, NOW + 100, NOW + 110 + 20 / 3])


def test_who_comes_first_waits_behind_those_who_wait() -> None:
    rate = Rate(10.0)
    bucket = Bucket()
    for expected in (0, 10, 20):
        bucket, permit = ask(bucket, rate, 0.0, NOW)
        assert permit.wait == pytest.approx(expected)
    # A permit is due, and it is another's.
    bucket, permit = ask(bucket, rate, 0.0, NOW + 10)
    assert permit.at == pytest.approx(NOW + 30)
    bucket, permit = ask(bucket, rate, NOW + 10, NOW + 10)
    assert permit.wait == 0


@pytest.mark.parametrize(
    ("bucket", "interval", "expected"),
    [
        (Bucket(NOW + 100, NOW + 300, 10.0), 1.0, (NOW + 10, NOW + 30)),
        (Bucket(NOW + 100, NOW + 300, 10.0), 10.0, (NOW + 100, NOW + 300)),
        (Bucket(NOW + 100, NOW + 300, 10.0), 100.0, (NOW + 100, NOW + 300)),
        # What is over doesn't come nearer.
        (Bucket(NOW - 100, NOW - 300, 10.0), 1.0, (NOW - 100, NOW - 300)),
        (Bucket(), 1.0, (0.0, 0.0)),
    ],
)
def test_another_rate(bucket: Bucket, interval: float, expected: tuple[float, float]) -> None:
    assert at_rate(bucket, Rate(interval), NOW) == (*expected, interval)


def test_what_nobody_has_come_for_is_not_lost() -> None:
    """Those that wait stand behind a long queue of new ones: the rate goes on without them."""
    rate, bucket = Rate(1.0), Bucket()
    given = []
    for n in range(1000):
        now = NOW + n / 100
        bucket, permit = ask(bucket, rate, 0.0, now)
        if not permit.wait:
            given.append(now - NOW)
    assert given[0] == 0
    assert given[1:] == pytest.approx(range(2, 10), abs=0.1)


@pytest.mark.parametrize("late", [0.0, 0.4, 0.9])
def test_being_late_by_less_than_an_interval_costs_nobody_a_permit(late: float) -> None:
    rate, bucket = Rate(1.0), Bucket()
    times = []
    for _ in range(10):
        bucket, permit = ask(bucket, rate, 0.0, NOW)
        times.append(permit.at or NOW)
    for n, at in enumerate(times[1:]):
        now = at + (late if n % 2 else 0.0)
        bucket, permit = ask(bucket, rate, at, now)
        assert permit.wait == 0, n


@pytest.mark.parametrize("burst", [1, 2, 10])
@pytest.mark.parametrize("away", [0.0, 0.5, 3.0])
def test_no_window_has_more_than_the_rate_and_the_burst(burst: int, away: float) -> None:
    """Also when workers were away for a while, and all times that were kept are over."""
    rate, bucket = Rate(0.01, burst), Bucket()
    waiting = []
    for _ in range(1000):
        bucket, permit = ask(bucket, rate, 0.0, NOW)
        waiting.append((permit.at or NOW, permit.at))
    given: list[float] = []
    while waiting:
        waiting.sort()
        (at, before), *waiting = waiting
        # Between the first and the second second nobody asks.
        now = at + away if NOW + 1 <= at < NOW + 1 + away else at
        now = max(now, given[-1] if given else now)
        bucket, permit = ask(bucket, rate, before, now)
        if permit.wait:
            waiting.append((permit.at, permit.at))
        else:
            given.append(now)
    assert len(given) == 1000
    fullest = max(sum(start <= at < start + 1 - 1e-6 for at in given) for start in given[::7])
    assert fullest <= 100 + burst


def test_nothing_is_kept_for_who_would_not_wait() -> None:
    bucket, _ = ask(Bucket(), Rate(10.0), 0.0, NOW)
    after, permit = ask(bucket, Rate(10.0), 0.0, NOW, within=9.0)
    assert (after, permit.wait) == (bucket, pytest.approx(10))
    after, permit = ask(bucket, Rate(10.0), 0.0, NOW, within=11.0)
    assert after.reserved == pytest.approx(NOW + 20)


def test_times_are_an_interval_apart() -> None:
    given = granted(Rate(0.5), [NOW] * 20)
    assert [b - a for a, b in pairwise(given)] == pytest.approx([0.5] * 19)
