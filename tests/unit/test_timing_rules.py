"""What a rule says: crontabs read, intervals on their grid, bounds, and what is refused."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
from croniter import croniter
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from jobs import timing
from jobs.timing import Rule
from jobs.timing.crontab import parse
from tests.unit.test_timing import BERLIN, ELAPSED, FIXED, utc

MINUTE = dt.timedelta(minutes=1)


def test_six_fields_have_the_second_in_front() -> None:
    rule = Rule(crontab="15 30 6 * * *")
    assert rule.following(utc(2026, 1, 1)) == utc(2026, 1, 1, 6, 30, 15)
    assert rule.following(utc(2026, 1, 1, 6, 30, 15)) == utc(2026, 1, 2, 6, 30, 15)


def test_each_second() -> None:
    rule = Rule(crontab="* * * * * *", zone=BERLIN)
    late = utc(2026, 12, 31, 22, 59, 58) + dt.timedelta(milliseconds=300)
    found = list(itertools.accumulate(range(3), lambda due, _: rule.following(due), initial=late))
    assert found[1:] == [utc(2026, 12, 31, 22, 59, 59), utc(2026, 12, 31, 23), *found[3:]]


@pytest.mark.parametrize(
    ("crontab", "days"),
    [
        ("0 0 l * *", ["01-31", "02-28", "03-31", "04-30"]),
        ("0 0 15,L 1-2 *", ["01-15", "01-31", "02-15", "02-28"]),
        ("0 0 * * fri#2", ["01-09", "02-13", "03-13", "04-10"]),
        ("0 0 * * mon#1,wed#3", ["01-05", "01-21", "02-02", "02-18"]),
        ("0 0 * * L5", ["01-30", "02-27", "03-27", "04-24"]),
        ("0 0 13 * fri", ["01-02", "01-09", "01-13", "01-16"]),  # either
        ("0 0 13 * fri#1", ["01-02", "01-13", "02-06", "02-13"]),
        ("0 0 */10 * thu", ["01-01", "05-21", "06-11", "10-01"]),  # both: one begins with a star
        ("0 0 1-7 * */7", ["01-04", "02-01", "03-01", "04-05"]),
        ("0 0 29 2 *", ["02-29"]),
        ("0 0 * jan sun-mon", ["01-04", "01-05", "01-11", "01-12"]),
    ],
)
def test_days(crontab: str, days: list[str]) -> None:
    rule, found, due = Rule(crontab=crontab), [], utc(2025, 12, 31, 12)
    while len(found) < len(days):
        following = rule.following(due)
        assert following is not None
        due = following
        found.append(f"{due:%m-%d}")
    assert found == days


@settings(deadline=None)
@given(
    st.sampled_from([*FIXED, *ELAPSED, "0 0 * * fri#3", "5 4 * * L2", "0 0 L 2 *"]),
    st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2090, 1, 1)),  # noqa: DTZ001
)
def test_local_times_agree_with_croniter(crontab: str, after: dt.datetime) -> None:
    expected = croniter(crontab, after, implement_cron_bug=True)
    times = parse(crontab).times(after)
    for _ in range(3):
        assert next(times) == expected.get_next(dt.datetime)


def test_reading_is_done_once() -> None:
    assert parse("17 3 * * mon") is parse("17 3 * * mon")


class TestInterval:
    EVERY = dt.timedelta(minutes=7)

    def following(self, after: dt.datetime, anchor: dt.datetime | None) -> dt.datetime | None:
        return Rule(interval=self.EVERY, anchor=anchor).following(after)

    def test_starts_at_the_moment_when_there_is_no_anchor(self) -> None:
        assert self.following(utc(2026, 1, 1), None) == utc(2026, 1, 1, 0, 7)

    @pytest.mark.parametrize(
        ("after", "due"),
        [
            (utc(2026, 1, 1, 0, 0), utc(2026, 1, 1, 0, 7)),
            (utc(2026, 1, 1, 0, 6, 59), utc(2026, 1, 1, 0, 7)),
            (utc(2026, 1, 1, 0, 7), utc(2026, 1, 1, 0, 14)),
            (utc(2026, 1, 1, 0, 7, 3), utc(2026, 1, 1, 0, 14)),  # late: it does not drift
            (utc(2026, 1, 1, 1, 0), utc(2026, 1, 1, 1, 3)),
        ],
    )
    def test_stays_on_its_grid(self, after: dt.datetime, due: dt.datetime) -> None:
        assert self.following(after, utc(2026, 1, 1)) == due

    def test_a_clock_set_back_does_not_hold_it_up(self) -> None:
        assert self.following(utc(2026, 1, 1), utc(2026, 1, 1, 1, 3)) == utc(2026, 1, 1, 0, 7)

    def test_counts_from_its_start(self) -> None:
        start = utc(2026, 3, 1, 0, 2)
        rule = Rule(interval=self.EVERY, anchor=utc(2026, 1, 1), start=start)
        assert rule.following(utc(2026, 1, 1)) == start
        assert rule.following(start) == start + self.EVERY
        assert rule.following(utc(2026, 3, 2)) == start + 206 * self.EVERY

    def test_another_interval_stays_on_the_grid_of_its_anchor(self) -> None:
        rule = Rule(interval=5 * MINUTE, anchor=utc(2026, 1, 1, 0, 3))
        assert rule.following(utc(2026, 1, 1, 0, 31)) == utc(2026, 1, 1, 0, 33)


class TestMoment:
    def test_is_due_once(self) -> None:
        rule = Rule(at=utc(2026, 5, 1))
        assert rule.following(utc(2026, 4, 30)) == utc(2026, 5, 1)
        assert rule.following(utc(2026, 5, 1)) is None


class TestBounds:
    RULE = Rule(crontab="0 6 * * *", start=utc(2026, 3, 1, 6), end=utc(2026, 3, 3, 6))

    def test_nothing_is_due_before_the_start_or_after_the_end(self) -> None:
        found, due = [], self.RULE.following(utc(2020, 1, 1))
        while due:
            found.append(due)
            due = self.RULE.following(due)
        assert found == [utc(2026, 3, day, 6) for day in (1, 2, 3)]


class TestWalk:
    """`count` and `newest`, which look at what was missed."""

    RULES = (
        Rule(interval=7 * MINUTE, anchor=utc(2026, 1, 1)),
        Rule(crontab="*/7 * * * *"),
        Rule(crontab="30 2 * * *", zone=BERLIN),
        Rule(crontab="* 9 1 * *"),
    )

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("later", [MINUTE, 90 * MINUTE, dt.timedelta(days=33)])
    def test_they_agree_with_a_walk(self, rule: Rule, later: dt.timedelta) -> None:
        first = rule.following(utc(2026, 2, 27))
        assert first is not None
        walked, due = [first], rule.following(first)
        while due is not None and due < first + later:
            walked.append(due)
            due = rule.following(due)
        assert rule.newest(first, first + later) == walked[-1]
        assert rule.count(first, first + later, 10**6) == len(walked)

    def test_of_a_crontab_no_more_are_counted_than_asked_for(self) -> None:
        assert Rule(crontab="* * * * *").count(utc(2026, 1, 1), utc(2027, 1, 1), 100) == 100

    def test_of_an_interval_all_are_counted_however_many(self) -> None:
        rule = Rule(interval=dt.timedelta(seconds=1), anchor=utc(2020, 1, 1))
        assert rule.count(utc(2020, 1, 1), utc(2026, 1, 1), 100) == 2192 * 86_400


def test_a_rule_that_says_nothing_is_never_due() -> None:
    assert Rule().following(utc(2026, 1, 1)) is None


def test_the_default_zone_is_that_of_the_settings(settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    assert timing.default_zone() == "Asia/Tokyo"


# ---------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    "crontab",
    [
        *FIXED,
        *ELAPSED,
        "0 0 * * fri#1",
        "*/5 0 0 * * L7",
        "0 0 * jan-mar mon,thu",
        "0 22-2 * * *",
        "5/15 * * * 7",
    ],
)
def test_valid_crontabs(crontab: str) -> None:
    timing.validate(crontab, None, BERLIN)


@pytest.mark.parametrize(
    ("crontab", "words"),
    [
        ("60 * * * *", "“60” is not a valid minute"),
        ("* 24 * * *", "“24” is not a valid hour"),
        ("* * 0 * *", "“0” is not a valid day of month"),
        ("* * * foo *", "“foo” is not a valid month"),
        ("* * * * mo", "“mo” is not a valid day of week"),
        ("*/0 * * * *", "“*/0” is not a valid minute"),
        ("r * * * *", "“r” is not a valid minute"),
        ("h(0-9) * * * *", "“h(0-9)” is not a valid minute"),
        ("* * * *", "Write five fields"),
        ("0 0 * * * * *", "Write five fields"),
        ("60 0 * * * *", "“60” is not a valid second"),
        ("0 0 15w * *", "“15w” is not a valid day of month"),
        ("0 0 * * fri#6", "“fri#6” is not a valid day of week"),
        ("@daily", "Write five fields"),
        ("every day", "Write five fields"),
        ("0 0 31 2 *", "never happens"),
        ("0 0 31 4,6,9,11 *", "never happens"),
    ],
)
def test_wrong_crontabs_are_refused_in_words(crontab: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        timing.validate(crontab, None, BERLIN)
    (text,) = caught.value.message_dict["crontab"]
    assert words in text


@pytest.mark.parametrize("seconds", [0, -5, 0.5, 4e9])
def test_wrong_intervals_are_refused(seconds: float) -> None:
    with pytest.raises(ValidationError) as caught:
        timing.validate("", dt.timedelta(seconds=seconds), BERLIN)
    assert list(caught.value.message_dict) == ["interval"]


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "Europe", "/etc/passwd", "../UTC", "x\0y"])
def test_wrong_zones_are_refused(zone: str) -> None:
    with pytest.raises(ValidationError) as caught:
        timing.validate("0 0 * * *", None, zone)
    assert list(caught.value.message_dict) == ["timezone"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        timing.validate("x", dt.timedelta(0), "nowhere")
    assert set(caught.value.message_dict) == {"crontab", "interval", "timezone"}


def test_a_rule_stored_past_validation_raises_when_asked() -> None:
    for crontab in ("* * * *", "61 * * * *"):
        with pytest.raises(ValidationError):
            Rule(crontab=crontab).following(utc(2026, 1, 1))


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({}, "crontab"),
        ({"crontab": "0 0 * * *", "interval": MINUTE}, "interval"),
        ({"interval": MINUTE, "at": utc(2026, 1, 1)}, "at"),
        ({"at": utc(2026, 1, 1), "start": utc(2026, 1, 2)}, "at"),
        ({"at": utc(2026, 1, 1), "end": utc(2025, 1, 2)}, "at"),
        ({"interval": MINUTE, "start": utc(2026, 1, 2), "end": utc(2026, 1, 1)}, "end_at"),
    ],
)
def test_one_kind_of_rule_and_an_end_after_the_start(rule: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        timing.validate(**rule)
    assert list(caught.value.message_dict) == [field]
