"""The list of schedules, what became of their runs, and all runs of one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from jobs.admin.schedules import runs
from jobs.models import Schedule, ScheduleRun, TaskResult
from tests.integration.admin.schedules import HOUR, LIST, made, page_of, ran

MINUTE = dt.timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _no_other_schedules(db: None) -> None:
    """The demonstration site brings some of its own."""
    Schedule.objects.all().delete()


def test_rules_in_words_and_the_next_run_in_their_zone(root: Client) -> None:
    made("daily", crontab="30 6 * * *", timezone="Asia/Tokyo")
    made("often", interval=5 * MINUTE, enabled=False)
    page = root.get(LIST).content.decode()
    for words in ("daily at 06:30", "Asia/Tokyo", " 06:30:00", "every 5 minutes"):
        assert words in page


def test_troubles(root: Client) -> None:
    made("unknown", task="gone.task")
    made("late")
    made("broken", crontab="0 0 * * *")
    made("dropped", dropped=True, enabled=False)
    made("over", at=timezone.now() + HOUR)
    past = timezone.now() - HOUR
    Schedule.objects.filter(name="late").update(next_run_at=past)
    Schedule.objects.filter(name="broken").update(crontab="whenever", next_run_at=None)
    Schedule.objects.filter(name="over").update(at=past, created_at=past - HOUR, next_run_at=None)
    page = root.get(LIST).content.decode()
    assert page.count('class="jobs-trouble"') == 4
    for words in (
        "its task is unknown here",
        "overdue: is beat running?",
        "its rule can’t be read",
        "no longer declared in code",
    ):
        assert words in page


def test_what_is_paused_or_waits_says_so(root: Client) -> None:
    made("paused", paused_until=timezone.now() + 3 * HOUR)
    made("queued")
    Schedule.objects.filter(name="queued").update(queued_for=timezone.now())
    page = root.get(LIST).content.decode()
    assert "paused until then" in page
    assert "a run waits for the last one to end" in page


def test_the_last_runs(root: Client) -> None:
    schedule = made()
    ran(schedule, ago=4 * HOUR, outcome=ScheduleRun.Outcome.OVERLAPPED)
    failed = ran(schedule, ago=3 * HOUR, state="FAILURE")
    TaskResult.objects.filter(pk=failed.result).update(error_type="builtins.ValueError")
    ran(schedule, ago=2 * HOUR, result="pruned")
    last = ran(schedule, ago=HOUR)
    Schedule.objects.filter(pk=schedule.pk).update(
        last_result=last.result, last_run_at=last.due_at, runs=7, skipped=2
    )
    page = root.get(LIST).content.decode()
    order = [page.index(f"jobs-box-{kind}") for kind in ("skipped", "failure", "gone", "success")]
    assert order == sorted(order)
    for words in (
        '<span class="jobs-box jobs-box-skipped"',
        '<a class="jobs-box jobs-box-success"',
        "failed: ValueError, 20 ms late",
        "skipped: the last run went on",
        "its result is not kept",
        "drift 20 ms",
        "1 h 0 min ago",
        "7 sent, 2 skipped",
        f'href="/admin/jobs/taskresult/{last.result}/change/" class="jobs-state',
    ):
        assert words in page


def test_only_the_newest_are_read(db: None) -> None:
    schedule, other = made(), made("other")
    for n in range(runs.STRIP + 5):
        ran(schedule, ago=n * MINUTE, result=f"r{n}")
    ran(other, ago=99 * HOUR, result="o")
    found = runs.recent([schedule, other])
    assert len(found[schedule.pk].runs) == runs.STRIP
    ages = [run.due_at for run in found[schedule.pk].runs]
    assert ages == sorted(ages, reverse=True)
    assert len(found[other.pk].runs) == 1
    assert runs.recent([]) == {}


def test_many_schedules_take_no_more_queries_than_one(
    root: Client, django_assert_num_queries: Any
) -> None:
    def fill(numbers: range) -> None:
        for n in numbers:
            run = ran(made(f"s{n}", labels="a"), ago=HOUR)
            ran(run.schedule, ago=2 * HOUR, outcome=ScheduleRun.Outcome.SKIPPED)
            Schedule.objects.filter(pk=run.schedule_id).update(last_result=run.result)

    fill(range(1))
    root.get(LIST)  # what is cached afterwards
    with django_assert_num_queries(10, exact=False) as few:
        root.get(LIST)
    fill(range(1, 50))
    with django_assert_num_queries(len(few)):
        page = root.get(LIST).content.decode()
    assert page.count('class="jobs-strip"') == 50


def test_labels(root: Client) -> None:
    made("one", labels="mail, night")
    made("two", labels="mailing")
    made("three", labels="night,mail")
    made("four")
    page: Any = root.get(LIST, {"label": "mail"})
    assert [schedule.name for schedule in page.context["cl"].result_list] == ["one", "three"]
    assert "?label=mailing" in page.content.decode()


def test_search(root: Client) -> None:
    made("one", description="for the boss")
    made("two")
    page: Any = root.get(LIST, {"q": "boss"})
    assert [schedule.name for schedule in page.context["cl"].result_list] == ["one"]


def test_all_runs_in_pages(root: Client) -> None:
    schedule = made()
    due = timezone.now()
    ScheduleRun.objects.bulk_create(
        ScheduleRun(schedule=schedule, due_at=due - n * MINUTE, at=due - n * MINUTE, result="x")
        for n in range(1, 150)
    )
    newest = ran(schedule, ago=dt.timedelta(seconds=1))
    page: Any = root.get(page_of(schedule, "runs"))
    assert len(page.context["rows"]) == 100
    assert f"/taskresult/{newest.result}/change/" in page.content.decode()
    older: Any = root.get(page_of(schedule, "runs"), {"before": page.context["older"]})
    assert len(older.context["rows"]) == 50
    assert older.context["older"] == ""


def test_no_runs_and_strange_addresses(root: Client) -> None:
    schedule = made()
    assert "There are no runs" in root.get(page_of(schedule, "runs")).content.decode()
    for before in ("soon", "2026-02-31T00:00", "2026-01-01T00:00:00"):
        assert root.get(page_of(schedule, "runs"), {"before": before}).status_code == 200
    assert root.get(f"{LIST}999999/runs/").status_code == 404
    assert root.get(f"{LIST}x/runs/").status_code == 404


def test_the_page_of_one_shows_what_became_of_it(root: Client) -> None:
    schedule = made()
    last = ran(schedule)
    Schedule.objects.filter(pk=schedule.pk).update(last_result=last.result, runs=1)
    page = root.get(page_of(schedule)).content.decode()
    assert "jobs-box-success" in page
    assert page_of(schedule, "runs") in page
    assert "succeeded" in page
