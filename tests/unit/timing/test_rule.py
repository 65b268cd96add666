"""What a rule says: crontabs read, intervals on their grid, bounds, and what is refused."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from typing import Any

import pytest
from croniter import croniter
from cronsim import CronSim, CronSimError
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from jobs import timing
from jobs.timing import Rule
from jobs.timing.crontab import parse
from tests.unit.timing.test_timing import BERLIN, ELAPSED, FIXED, utc

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
        ("0 0 12 ? * MON-FRI", ["01-01", "01-02", "01-05", "01-06"]),  # the other day field decides
        ("0 0 12 1 * ?", ["01-01", "02-01", "03-01", "04-01"]),
        ("0 0 0 1/1 * ?", ["01-01", "01-02", "01-03", "01-04"]),
        ("0 0 ? * fri", ["01-02", "01-09", "01-16", "01-23"]),
        ("0 0 ? * fri#2", ["01-09", "02-13", "03-13", "04-10"]),
        ("0 0 L * ?", ["01-31", "02-28", "03-31", "04-30"]),
        ("0 0 */10 * ?", ["01-01", "01-11", "01-21", "01-31"]),
        ("0 0 ? * *", ["01-01", "01-02", "01-03", "01-04"]),
        ("0 0 30-L * *", ["01-30", "01-31", "03-30", "03-31"]),
        ("0 0 * * wed,fri#1", ["01-02", "01-07", "01-14", "01-21"]),
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


#: Field → place, first and last value, names.
PLACES = {
    "minute": (0, 0, 59, ()),
    "hour": (1, 0, 23, ()),
    "day": (2, 1, 31, ()),
    "month": (3, 1, 12, ("jan", "apr", "nov", "dec")),
    "weekday": (4, 0, 6, ("sun", "tue", "fri", "sat")),
}


@st.composite
def fields(draw: st.DrawFn, name: str, *, wrap: bool = True, bare_steps: bool = True) -> str:
    """Texts of one field. ``wrap``: with ranges over the end; ``bare_steps``: such as ``5/15``."""
    _, first, last, names = PLACES[name]
    parts = []
    for _n in range(draw(st.integers(1, 3))):
        one, two = draw(st.integers(first, last)), draw(st.integers(first, last))
        if one == two or (one > two and not wrap):
            one, two = first, last
        word = draw(st.sampled_from(names)) if names else str(one)
        step = f"/{draw(st.integers(1, last - first))}"
        forms = ["*", f"*{step}", str(one), word, f"{one}-{two}", f"{one}-{two}{step}"]
        parts.append(draw(st.sampled_from([*forms, f"{one}{step}"] if bare_steps else forms)))
    return ",".join(parts)


def values_of(text: str, name: str) -> set[int]:
    texts = ["*"] * 5
    texts[PLACES[name][0]] = text
    found = parse(" ".join(texts))
    return set(
        (found.minutes, found.hours, found.days, found.months, found.weekdays)[PLACES[name][0]]
    )


@pytest.mark.parametrize("name", PLACES)
def test_a_field_has_the_values_that_celery_reads(name: str) -> None:
    schedules = pytest.importorskip("celery.schedules", reason="Celery is not installed")
    _, first, last, _ = PLACES[name]
    celerys = {
        "month": schedules.crontab_parser(12, 1),
        "weekday": schedules.crontab_parser(7),
    }.get(name, schedules.crontab_parser(last - first + 1, first))

    @settings(deadline=None)
    @given(fields(name, bare_steps=False))
    def check(text: str) -> None:
        numbers = text
        if name == "month":  # of which Celery's parser knows only days' names
            for number, month in ((1, "jan"), (4, "apr"), (11, "nov"), (12, "dec")):
                numbers = numbers.replace(month, str(number))
        assert values_of(text, name) == celerys.parse(numbers)

    check()


@settings(deadline=None, max_examples=300)
@given(
    st.tuples(*(fields(name, wrap=False) for name in PLACES)),
    st.sampled_from(["", "fri#2", "1#1,3#3", "L5", "L0,L3"]),
    st.sampled_from(["", "L", "1,L"]),
    st.integers(946_684_800, 2_840_140_800).map(lambda at: dt.datetime.fromtimestamp(at, dt.UTC)),
)
def test_whole_crontabs_agree_with_cronsim(
    texts: tuple[str, ...], weekday: str, day: str, after: dt.datetime
) -> None:
    written = [*texts[:2], day or texts[2], texts[3], weekday or texts[4]]
    # To cronsim a weekday "1/2" goes on to 7, which is Sunday; here, as in croniter, to Saturday.
    to_saturday = re.sub(r"(^|,)(\w+)/", r"\1\2-6/", written[4])
    judge = [*written[:4], re.sub(r"L(\d)", r"\1L", to_saturday)]
    due: dt.datetime | None = after
    try:
        expected = list(itertools.islice(CronSim(" ".join(judge), after), 5))
    except CronSimError:
        expected = []
    for one in expected:
        assert due is not None
        due = Rule(crontab=" ".join(written)).following(due)
        assert due == one


@settings(deadline=None)
@given(fields("day"), fields("weekday"))
def test_a_question_mark_leaves_the_day_to_the_other_field(day: str, weekday: str) -> None:
    assert parse(f"0 0 {day} * ?") == parse(f"0 0 {day} * *")
    assert parse(f"0 30 6 ? * {weekday}") == parse(f"0 30 6 * * {weekday}")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5-5", {5}),
        ("7-7", {0}),
        ("7-0", {0}),
        ("sun-sun", {0}),
        ("fri-5", {5}),
        ("fri-sun", {5, 6, 0}),
        ("5-7", {5, 6, 0}),
        ("0-7", {0, 1, 2, 3, 4, 5, 6}),
        ("7-2", {0, 1, 2}),
        ("6-5/2", {6, 1, 3, 5}),
    ],
)
def test_ranges_of_days_of_the_week(text: str, values: set[int]) -> None:
    assert parse(f"0 0 * * {text}").weekdays == values


@pytest.mark.parametrize("text", ["4-4", "4-4/2", "04-4"])
def test_a_range_of_one(text: str) -> None:
    assert parse(f"{text} * * * *").minutes == (4,)


@pytest.mark.parametrize(
    "text",
    [
        *("? * * * *", "* ? * * *", "* * * ? *", "? * * * * *", "0 0 ?/2 * *", "0 0 1,? * *"),
        *("0 0 W * ?", "0 0 LW * ?", "0 0 15W * ?", "0 0 L-3 * ?", "0 0 l-1 * *", "0 0 L/2 * *"),
        *("0 0 ? * 5L", "0 0 ? * friL", "0 0 ? * L", "0 0 * * 5#6", "0 0 * * 1-5#2", "0 0 * * #2"),
        *("@daily", "0 0 0 1 1 ? 2026", "0 0 0 * *", "0 0 1, 15 * *", "0 0 * * mon-", ""),
        *("-1 * * * *", "60 * * * *", "*/0 * * * *", "1,,2 * * * *", "+1 * * * *", "1_0 * * * *"),
        *("\u0663 * * * *", "\uff11 * * * *", "\u00b2 * * * *", "0x1 * * * *", "1.5 * * * *"),
        *("0 0 * * monday", "0 0 * january *", "r * * * *", "h * * * *", "jan * * * *"),
        *("0 0 30 2 ?", "0 0 31 4,6,9,11 *"),
    ],
)
def test_what_no_crontab_here_says_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse(text)


def test_two_question_marks_say_nothing() -> None:
    with pytest.raises(ValidationError, match="only one of the two"):
        parse("0 0 12 ? * ?")


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
