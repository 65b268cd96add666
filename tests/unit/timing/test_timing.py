"""Due times of crontabs, above all where clocks change.

Two independent judges: cronsim, which follows Debian's cron, and a look at every single minute.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterator

import pytest
from cronsim import CronSim

from tests.unit.timing.rules import following

BERLIN = "Europe/Berlin"  # an hour, at 1:00 UTC
NEW_YORK = "America/New_York"  # an hour, at 2:00 local time
LORD_HOWE = "Australia/Lord_Howe"  # half an hour, in the other half of the year
ZONES = (BERLIN, NEW_YORK, LORD_HOWE, "UTC")

FIXED = (
    "30 2 * * *",
    "0 2 * * *",
    "15,45 1,2,3 * * *",
    "0 0 * * *",
    "10 0-4 * * sun",
    "5 1-23/2 * mar,apr,oct,nov *",
    "0 0 29 2 *",
    "0 12 13 * fri",
    "59 23 l * *",
    "0 7 1-7 */2 *",
)
ELAPSED = (
    "*/15 * * * *",
    "15 * * * *",
    "0 */6 * * *",
    "*/30 2 * * *",
    "* 1-2 * * sun",
    "*/20 1-3 * 3,10 sun",
    "7 */2 */2 * mon-fri",
)


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


def due_times(crontab: str, zone: str, start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """Times after start and before end."""
    found: list[dt.datetime] = []
    due: dt.datetime | None = start
    while (due := following(crontab, None, zone, after=due, anchor=None)) and due < end:
        found.append(due)
    return found


def judged(crontab: str, zone: str, start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """What cronsim says. It lists a time twice when two local times of a gap fall onto its end."""
    found: list[dt.datetime] = []
    for local in CronSim(crontab.replace("L0", "0L"), start.astimezone(zoneinfo.ZoneInfo(zone))):
        due = local.astimezone(dt.UTC)
        if due >= end:
            break
        if due not in found[-1:]:
            found.append(due)
    return found


def changes(zone: str) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """A day and a quarter around each change of the zone's clocks in a year."""
    day, tz = utc(2025, 3, 1), zoneinfo.ZoneInfo(zone)
    while day < utc(2026, 4, 30):
        after = day + dt.timedelta(days=1)
        if day.astimezone(tz).utcoffset() != after.astimezone(tz).utcoffset():
            yield day, after + dt.timedelta(hours=6)
        day = after


#: cronsim loses times where clocks change by half an hour, and makes some up where midnight is
#: skipped; `every_minute` is the judge there.
#: Zones whose clocks do something unusual in these years: changes at midnight, of two hours, in
#: Ramadan, on dates set by decree, or an end of all changes.
UNUSUAL = (
    *("America/Sao_Paulo", "America/Havana", "Antarctica/Troll", "Africa/Casablanca"),
    *("Africa/Cairo", "Asia/Gaza", "America/Asuncion", "Europe/Dublin"),
)

AGREEING = [
    (zone, crontab)
    for crontab in FIXED + ELAPSED
    for zone in ZONES
    if crontab in FIXED or zone != LORD_HOWE
]


@pytest.mark.parametrize(("zone", "crontab"), AGREEING)
def test_a_long_time_agrees_with_cronsim(zone: str, crontab: str) -> None:
    start = utc(2024, 2, 27, 23, 59)
    end = start + dt.timedelta(days=60 if crontab in FIXED else 4)
    assert due_times(crontab, zone, start, end) == judged(crontab, zone, start, end)


def test_leap_days_agree_with_cronsim() -> None:
    start, end = utc(1999, 1, 1), utc(2030, 1, 1)
    found = due_times("0 0 29 2 *", BERLIN, start, end)
    assert found == judged("0 0 29 2 *", BERLIN, start, end)
    assert len(found) == 8


@pytest.mark.parametrize(("zone", "crontab"), AGREEING)
def test_days_of_change_agree_with_cronsim(zone: str, crontab: str) -> None:
    for start, end in changes(zone):
        assert due_times(crontab, zone, start, end) == judged(crontab, zone, start, end)


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, *UNUSUAL])
@pytest.mark.parametrize(
    "crontab",
    [
        *(
            "30 2 * 3,4,10 *",
            "0 0 * * fri,sat,sun",
            "15 0,3 L * *",
            "30 2 * * sun#1",
            "30 1 * * L0",
        ),
        *("0 0 13 * fri", "30 */2 * 3,10 sat,sun"),
    ],
)
def test_ten_years_agree_with_cronsim(zone: str, crontab: str) -> None:
    start, end = utc(2016, 1, 1), utc(2026, 1, 1)
    found = due_times(crontab, zone, start, end)
    assert found == judged(crontab, zone, start, end)
    assert len(found) >= 100


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, "Africa/Casablanca"])
@pytest.mark.parametrize("crontab", ["*/20 */7 2 * * *", "15 * 1,2,3 * * *", "*/30 59 */3 * * *"])
def test_seconds_of_elapsed_time_agree_with_cronsim(zone: str, crontab: str) -> None:
    for start, end in changes(zone):
        assert due_times(crontab, zone, start, end) == judged(crontab, zone, start, end)


@pytest.mark.parametrize("crontab", FIXED)
@pytest.mark.parametrize("zone", [BERLIN, LORD_HOWE])
def test_a_second_at_fixed_times_moves_them_by_it(zone: str, crontab: str) -> None:
    for start, end in changes(zone):
        five = due_times(crontab, zone, start - dt.timedelta(minutes=1), end)
        for due in due_times(f"17 {crontab}", zone, start, end):
            # But what falls into a gap comes at its end, with or without seconds.
            assert {due, due - dt.timedelta(seconds=17)} & set(five)
        assert due_times(f"0 {crontab}", zone, start - dt.timedelta(minutes=1), end) == five


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("crontab", ["*/15 * * * *", "*/30 2 * * *", "* 1-2 * * *", "0 */6 * * *"])
def test_every_minute_whose_local_time_matches_is_due(zone: str, crontab: str) -> None:
    judge = CronSim(crontab, utc(2024, 1, 1))  # for its reading of the fields alone
    tz = zoneinfo.ZoneInfo(zone)
    for start, end in changes(zone):
        minutes = [start + dt.timedelta(minutes=n) for n in range(1, 30 * 60)]
        local = [minute.astimezone(tz) for minute in minutes]
        matching = [
            minute
            for minute, here in zip(minutes, local, strict=True)
            if here.minute in judge.minutes and here.hour in judge.hours
        ]
        assert due_times(crontab, zone, start, end) == matching


@pytest.mark.parametrize("start", range(0, 180, 17))
def test_from_any_moment_of_a_change_the_answer_is_the_same(start: int) -> None:
    day = utc(2025, 10, 26)  # Berlin: 2:00 to 3:00 twice, at 0:00 and 1:00 UTC
    moment = day + dt.timedelta(minutes=start, seconds=1)
    for crontab in ("*/30 2 * * *", "30 2 * * *", "*/7 * * * *"):
        every = due_times(crontab, BERLIN, day - dt.timedelta(hours=1), day + dt.timedelta(days=2))
        later = next(due for due in every if due > moment)
        assert following(crontab, None, BERLIN, after=moment, anchor=None) == later


@pytest.mark.parametrize(
    ("zone", "after", "due"),
    [
        (BERLIN, utc(2026, 3, 28, 12), utc(2026, 3, 29, 1)),  # skipped: 2:30 is at 3:00 summer time
        (BERLIN, utc(2026, 3, 29, 1), utc(2026, 3, 30, 0, 30)),
        (BERLIN, utc(2026, 10, 24, 12), utc(2026, 10, 25, 0, 30)),  # repeated: the first
        (BERLIN, utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)),
        (NEW_YORK, utc(2026, 3, 7, 12), utc(2026, 3, 8, 7)),
        (LORD_HOWE, utc(2026, 10, 3, 0), utc(2026, 10, 3, 15, 30)),  # 2:00 became 2:30
        ("Pacific/Apia", utc(2011, 12, 29, 13), utc(2011, 12, 30, 10)),  # a day that never was
        ("UTC", utc(2026, 3, 28, 12), utc(2026, 3, 29, 2, 30)),
    ],
)
def test_half_past_two(zone: str, after: dt.datetime, due: dt.datetime) -> None:
    assert following("30 2 * * *", None, zone, after=after, anchor=None) == due


def test_a_due_time_is_later_than_asked_and_in_utc() -> None:
    berlin = zoneinfo.ZoneInfo(BERLIN)
    noon = dt.datetime(2026, 6, 1, 12, 0, tzinfo=berlin)
    due = following("0 12 * * *", None, BERLIN, after=noon, anchor=None)
    assert due == utc(2026, 6, 2, 10)
    assert due.tzinfo is dt.UTC
    just_before = noon - dt.timedelta(microseconds=1)
    assert following("0 12 * * *", None, BERLIN, after=just_before, anchor=None) == noon


@pytest.mark.parametrize("second", ["0,20,40", "5-9"])
def test_seconds_in_a_gap_count_once(second: str) -> None:
    rule = f"{second} 30 2 29 3 *"
    found = due_times(rule, BERLIN, utc(2026, 3, 1), utc(2026, 4, 30))
    assert found == [utc(2026, 3, 29, 1)]


def local_times(crontab: str, day: dt.datetime) -> list[str]:
    """Readings of Berlin's clock on a day on which it changes, with summer or winter time."""
    zone = zoneinfo.ZoneInfo(BERLIN)
    first = day.replace(tzinfo=zone) - dt.timedelta(seconds=1)
    found = due_times(crontab, BERLIN, first, day.replace(tzinfo=zone) + dt.timedelta(days=1))
    return [f"{due.astimezone(zone):%H:%M %Z}" for due in found]


@pytest.mark.parametrize(
    ("crontab", "spring", "autumn"),
    [
        ("30 2 * * *", ["03:00 CEST"], ["02:30 CEST"]),
        ("0,30 2 * * *", ["03:00 CEST"], ["02:00 CEST", "02:30 CEST"]),
        ("*/30 2 * * *", [], ["02:00 CEST", "02:30 CEST", "02:00 CET", "02:30 CET"]),
        (
            "0 */6 * * *",
            ["00:00 CET", "06:00 CEST", "12:00 CEST", "18:00 CEST"],
            ["00:00 CEST", "06:00 CET", "12:00 CET", "18:00 CET"],
        ),
    ],
)
def test_the_table_of_the_documentation(crontab: str, spring: list[str], autumn: list[str]) -> None:
    assert local_times(crontab, dt.datetime(2026, 3, 29)) == spring  # noqa: DTZ001
    assert local_times(crontab, dt.datetime(2026, 10, 25)) == autumn  # noqa: DTZ001
