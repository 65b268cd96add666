"""The picture of the next 24 hours."""

from __future__ import annotations

import datetime as dt

import pytest

from jobs.admin.schedules import day
from jobs.models import Schedule

NOW = dt.datetime(2026, 5, 1, 12, 0, 30, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


def counted(*schedules: Schedule) -> int:
    return int(day.context_of(schedules, NOW)["total"])


def made(name: str = "s", **rule: object) -> Schedule:
    return Schedule(pk=1, name=name, created_at=NOW - 40 * SECOND, **rule)


@pytest.mark.parametrize(
    ("rule", "runs"),
    [
        ({"crontab": "0 3 * * *"}, 1),
        ({"crontab": "*/10 * * * *"}, 144),
        ({"crontab": "0 0 1 1 *"}, 0),
        ({"interval": dt.timedelta(hours=1)}, 24),
        ({"crontab": "* * * * *", "paused_until": NOW + dt.timedelta(hours=23)}, 60),
        ({"crontab": "whenever"}, 0),
    ],
)
def test_how_many_runs(rule: dict[str, object], runs: int) -> None:
    assert counted(made(**rule)) == runs


def test_one_that_runs_too_often_is_counted_at_its_pace() -> None:
    """Its runs are not worked out one by one: there are 86,400."""
    assert counted(made(interval=SECOND)) == pytest.approx(86_400, rel=0.01)


def test_many_schedules_cost_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = Schedule.next_runs

    def next_runs(self: Schedule, now: dt.datetime, count: int) -> list[dt.datetime]:
        asked.append(count)
        return original(self, now, count)

    monkeypatch.setattr(Schedule, "next_runs", next_runs)
    many = [made(f"s{n}", crontab="* * * * *") for n in range(day.SCHEDULES + 50)]
    found = day.context_of(many, NOW)
    assert sum(asked) <= 4_000
    assert found["cut"]
    assert found["total"] == pytest.approx(day.SCHEDULES * 1_440, rel=0.01)


def test_the_next_ones_in_their_order() -> None:
    often, nightly = made("often", crontab="*/30 * * * *"), made("nightly", crontab="45 12 * * *")
    found = day.context_of([often, nightly], NOW)["nearest"]
    assert [(f"{run.at:%H:%M}", run.schedule.name) for run in found[:4]] == [
        ("12:30", "often"),
        ("12:45", "nightly"),
        ("13:00", "often"),
        ("13:30", "often"),
    ]
    assert len(found) == day.LISTED


def test_each_half_hour_has_a_bar() -> None:
    bars = day.context_of([made(crontab="0 13 * * *")], NOW)["bars"]
    assert [bar.title for bar in bars if bar.height] == ["12:30–13:00: 1 run"]
    assert len(bars) == 48
