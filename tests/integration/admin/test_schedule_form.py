"""The form of a schedule: what it stores, and what it refuses beside the field."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from jobs.models import Schedule, ScheduleRun
from tests.integration.admin.conftest import staff
from tests.integration.admin.schedules import ADD, HOUR, TASK, errors, form, made, page_of, ran

BERLIN = dt.timezone(dt.timedelta(hours=1))  # in winter


@pytest.fixture(autouse=True)
def _no_other_schedules(db: None) -> None:
    """The demonstration site brings some of its own."""
    Schedule.objects.all().delete()


# ------------------------------------------------------------------------ what is stored


def test_an_interval(root: Client) -> None:
    assert root.post(ADD, form(args="[1]", kwargs='{"b": 2}')).status_code == 302
    schedule = Schedule.objects.get()
    assert (schedule.task, schedule.queue) == (TASK, "")
    assert (schedule.args, schedule.kwargs, schedule.headers) == ([1], {"b": 2}, {})
    assert (schedule.interval, schedule.crontab, schedule.at) == (dt.timedelta(minutes=5), "", None)
    assert schedule.misfire_window == dt.timedelta(days=1)
    assert schedule.next_run_at is not None


def test_a_crontab(root: Client) -> None:
    root.post(ADD, form(kind="crontab", crontab="30 6 * * mon-fri", queue="low"))
    schedule = Schedule.objects.get()
    assert (schedule.crontab, schedule.interval) == ("30 6 * * mon-fri", None)
    assert (schedule.timezone, schedule.queue) == ("Europe/Berlin", "low")


def test_one_moment_by_the_clock_of_its_zone(root: Client) -> None:
    root.post(ADD, form(kind="at", at="2100-01-02T08:00:00"))
    schedule = Schedule.objects.get()
    assert schedule.at == dt.datetime(2100, 1, 2, 8, tzinfo=BERLIN)
    assert (schedule.crontab, schedule.interval) == ("", None)
    assert 'value="2100-01-02T08:00:00"' in root.get(page_of(schedule)).content.decode()


def test_all_else(root: Client) -> None:
    details = {
        "description": "why",
        "labels": " mail,  very   slow ,mail,",
        "priority": "3",
        "headers": '{"tenant": "a"}',
        "options": '{"time_limit": 60}',
        "expires_0": "2",
        "expires_1": "3600",
        "start_at": "2100-01-01T00:00",
        "end_at": "2100-02-01T00:00:00",
        "misfire": "all",
        "misfire_window_0": "3",
        "misfire_window_1": "604800",
        "overlap": "queue",
        "jitter_0": "1.5",
        "jitter_1": "1",
    }
    assert root.post(ADD, form(**details)).status_code == 302
    schedule = Schedule.objects.get()
    assert (schedule.description, schedule.labels) == ("why", "mail, very slow")
    assert (schedule.priority, schedule.headers) == (3, {"tenant": "a"})
    assert schedule.options == {"time_limit": 60}
    assert (schedule.expires, schedule.jitter) == (2 * HOUR, dt.timedelta(seconds=1.5))
    assert (schedule.misfire, schedule.overlap) == ("all", "queue")
    assert schedule.misfire_window == dt.timedelta(weeks=3)
    assert schedule.start_at == dt.datetime(2100, 1, 1, tzinfo=BERLIN)
    assert schedule.end_at == dt.datetime(2100, 2, 1, tzinfo=BERLIN)


def test_another_kind_of_rule_replaces_the_first(root: Client) -> None:
    schedule = made()
    fields = form(kind="crontab", crontab="0 6 * * *", interval_0="60")
    assert root.post(page_of(schedule), fields).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.crontab, schedule.interval) == ("0 6 * * *", None)


def test_what_nobody_edited_stays_to_the_microsecond(root: Client) -> None:
    start = dt.datetime(2100, 1, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
    schedule = made(start_at=start, timezone="Europe/Berlin")
    shown = form(start_at="2100-01-01T13:30:15", interval_0="1", interval_1="3600")
    assert root.post(page_of(schedule), shown).status_code == 302
    assert Schedule.objects.get().start_at == start


def test_the_past_of_one_that_has_fired_may_be_described(root: Client) -> None:
    at = timezone.now().replace(microsecond=0) - HOUR
    schedule = made(at=at, timezone="UTC", created_at=at - HOUR)
    shown = form(kind="at", at=f"{at:%Y-%m-%dT%H:%M:%S}", timezone="UTC", description="fired")
    assert root.post(page_of(schedule), shown).status_code == 302
    assert Schedule.objects.get().description == "fired"


def test_a_task_that_is_unknown_now_stays(root: Client) -> None:
    schedule = made(task="gone.task")
    page = root.get(page_of(schedule)).content.decode()
    assert "gone.task (unknown)" in page
    assert "This code has no task “gone.task”" in page
    fields = form(name="new", task="gone.task", timezone="UTC")
    assert root.post(page_of(schedule), fields).status_code == 302
    assert Schedule.objects.get().name == "new"


# ----------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"kind": "crontab", "crontab": "61 * * * *"}, "crontab", "not a valid minute"),
        ({"kind": "crontab", "crontab": "6 am"}, "crontab", "Write five fields"),
        ({"kind": "crontab", "crontab": "0 0 31 2 *"}, "crontab", "never happens"),
        ({"kind": "crontab", "crontab": "* " * 150}, "crontab", "at most 200 characters"),
        ({"kind": "crontab"}, "crontab", "Say when it runs"),
        ({"interval_0": "0.5", "interval_1": "1"}, "interval", "at least one second"),
        ({"interval_0": "0"}, "interval", "above zero"),
        ({"interval_0": "-1"}, "interval", "above zero"),
        ({"interval_0": "9" * 9}, "interval", "at most a hundred years"),
        ({"interval_0": "9" * 15}, "interval", "too long"),
        ({"interval_0": "nan"}, "interval", "Enter a number"),
        ({"interval_0": "soon"}, "interval", "Enter a number"),
        ({"interval_0": ""}, "interval", "Say when it runs"),
        ({"interval_1": "7"}, "interval", "valid choice"),
        ({"kind": "at", "at": "2020-01-01T00:00:00"}, "at", "past"),
        ({"kind": "at", "at": "soon"}, "at", "valid date/time"),
        # When clocks go forward in Berlin.
        ({"kind": "at", "at": "2099-03-29T02:30:00"}, "at", "may not exist"),
        ({"kind": "at"}, "at", "Say when it runs"),
        ({"kind": "sometimes"}, "kind", "valid choice"),
        ({"kind": ""}, "kind", "required"),
        ({"timezone": "Mars/Olympus"}, "timezone", "valid choice"),
        ({"timezone": "../../etc/passwd"}, "timezone", "valid choice"),
        (
            {"start_at": "2100-01-02T00:00", "end_at": "2100-01-01T00:00"},
            "end_at",
            "later than the start",
        ),
        ({"end_at": "2020-01-01T00:00"}, "end_at", "No run falls before this end"),
        ({"paused_until": "2101-01-01T00:00", "end_at": "2100-01-01T00:00"}, "end_at", "never run"),
        ({"args": '{"name": "Ann"}'}, "args", "JSON list"),
        ({"args": "Ann"}, "args", "valid JSON"),
        ({"args": ""}, "args", "missing a required argument: 'a'"),
        ({"args": "[1, 2, 3]"}, "args", "too many positional arguments"),
        ({"kwargs": "[1]"}, "kwargs", "JSON object"),
        ({"kwargs": '{"volume": 1}'}, "args", "unexpected keyword argument 'volume'"),
        ({"headers": "7"}, "headers", "JSON object"),
        ({"options": "7"}, "options", "JSON object"),
        ({"options": '{"time_limit": -1}'}, "options", "time_limit"),
        ({"options": '{"queue": "low"}'}, "options", "Leave out 'queue'"),
        ({"options": '{"tme_limit": 1}'}, "options", "Did you mean 'time_limit'?"),
        ({"task": "no.such.task"}, "task", "valid choice"),
        ({"queue": "nowhere"}, "queue", "valid choice"),
        ({"priority": "10"}, "priority", "less than or equal to 9"),
        ({"expires_0": "-3"}, "expires", "above zero"),
        ({"name": "taken"}, "name", "already exists"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    root: Client, fields: dict[str, str], field: str, words: str
) -> None:
    made("taken")
    answer = errors(root, **fields)
    assert words in " ".join(answer[field])
    assert list(answer) == [field]
    assert Schedule.objects.count() == 1


def test_a_queue_that_is_not_declared_any_more(root: Client) -> None:
    answer = errors(root, page_of(made(queue="gone")), queue="gone")
    assert "not declared" in " ".join(answer["queue"])


def test_a_stored_rule_that_can_not_be_read_opens(root: Client) -> None:
    schedule = made(crontab="0 0 * * *")
    Schedule.objects.filter(pk=schedule.pk).update(crontab="whenever", timezone="Mars")
    assert root.get(page_of(schedule)).status_code == 200
    answer = errors(root, page_of(schedule), kind="crontab", crontab="whenever")
    assert list(answer) == ["crontab"]


def test_code_knows_its_schedules_by_their_names(root: Client) -> None:
    schedule = made(declared={"queue": ""})
    assert 'name="name"' not in root.get(page_of(schedule)).content.decode()
    assert root.post(page_of(schedule), form(name="other", queue="low")).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.name, schedule.queue) == ("s", "low")


def test_deleting_does_not_look_at_each_run(root: Client) -> None:
    schedule = made()
    for n in range(5):
        ran(schedule, ago=n * HOUR, result="x")
    url = page_of(schedule, "delete")
    page = root.get(url).content.decode()
    assert "schedulerun" not in page.lower()
    assert f"{schedule.pk}@" not in page
    root.post(url, {"post": "yes"})
    assert not Schedule.objects.exists()
    assert not ScheduleRun.objects.exists()


# --------------------------------------------------------------------- copies and lookers


def test_the_copy_comes_filled_in(root: Client) -> None:
    schedule = made("n" * 200, at=timezone.now() + HOUR, labels="a, b", kwargs={})
    page: Any = root.get(ADD, {"copy": schedule.pk})
    initial = page.context["adminform"].form.initial
    assert initial["name"] == "n" * 193 + " (copy)"
    assert (initial["kind"], initial["enabled"], initial["labels"]) == ("at", False, "a, b")
    assert root.get(ADD, {"copy": "no such"}).status_code == 200


def test_who_may_only_look_sees_all_and_changes_nothing() -> None:
    client = staff("jobs.view_schedule")
    schedule = made(crontab="30 6 * * *")
    page = client.get(page_of(schedule)).content.decode()
    assert "daily at 06:30" in page
    assert "30 6 * * *" in page
    assert 'name="crontab"' not in page
    assert 'id="jobs-disable"' not in page
    assert client.post(page_of(schedule), form()).status_code == 403


@pytest.mark.parametrize("url", ["", "add/", "1/change/", "1/delete/", "1/runs/", "preview/"])
def test_only_who_may(url: str) -> None:
    made(pk=1)
    assert Client().get(f"/admin/jobs/schedule/{url}").status_code == 302
    assert staff().get(f"/admin/jobs/schedule/{url}").status_code == 403
