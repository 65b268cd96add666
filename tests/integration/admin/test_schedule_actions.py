"""What is done to schedules, from the list and from their pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from pytest_django import Settings

from jobs import broker
from jobs.models import Schedule, ScheduleRun, TaskResult
from tests import services
from tests.integration.admin.conftest import staff
from tests.integration.admin.schedules import LIST, made, page_of

Act = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_other_schedules(db: None) -> None:
    """The demonstration site brings some of its own."""
    Schedule.objects.all().delete()


def from_the_list(client: Client, action: str, *schedules: Schedule, **more: str) -> str:
    data = {"action": action, "_selected_action": [s.pk for s in schedules], **more}
    return client.post(LIST, data, follow=True).content.decode()


def from_their_pages(client: Client, action: str, *schedules: Schedule, **more: str) -> str:
    pages = [client.post(page_of(s, action), more, follow=True) for s in schedules]
    return "".join(page.content.decode() for page in pages)


@pytest.fixture(params=[from_the_list, from_their_pages])
def act(request: pytest.FixtureRequest) -> Act:
    """Does something to schedules, and gives the page that comes then."""
    found: Act = request.param
    return found


def logged() -> str:
    return LogEntry.objects.get().get_change_message()


@pytest.mark.django_db(transaction=True)
def test_run_now(broker_url: str, act: Act) -> None:
    client = staff(superuser=True)
    schedule = made(queue="high")
    assert "Run now: 1 schedule." in act(client, "run_now", schedule)
    row = TaskResult.objects.get()
    assert (row.task, row.queue, row.args) == ("tests.tasks.add", "high", "[1,2]")
    assert broker.get().stats("high").waiting == 1
    after = Schedule.objects.get()
    assert (after.next_run_at, after.runs) == (schedule.next_run_at, 0)
    assert row.id in logged()


@pytest.mark.django_db(transaction=True)
def test_what_can_not_be_sent_is_said(broker_url: str, act: Act) -> None:
    client = staff(superuser=True)
    assert "“lost” is left as it is" in act(client, "run_now", made("lost", queue="gone"))
    assert not TaskResult.objects.exists()
    assert not LogEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_redis_away_leaves_it_to_the_relay(own_valkey: services.Valkey, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "RETRY_POLICY": {"max_retries": 0}}
    own_valkey.kill()
    client = staff(superuser=True)
    assert "Run now: 1 schedule." in from_the_list(client, "run_now", made())
    assert TaskResult.objects.get().published_at is None


def test_disable_and_enable(root: Client, act: Act) -> None:
    schedule = made()
    act(root, "disable", schedule)
    schedule.refresh_from_db()
    assert (schedule.enabled, schedule.next_run_at) == (False, None)
    assert logged() == "Disabled."
    act(root, "enable", schedule)
    schedule.refresh_from_db()
    assert schedule.enabled
    assert schedule.next_run_at is not None


def test_a_rule_that_can_not_be_read_stays_disabled(root: Client, act: Act) -> None:
    schedule = made(crontab="0 0 * * *", enabled=False)
    Schedule.objects.filter(pk=schedule.pk).update(crontab="whenever")
    assert "Write five fields" in act(root, "enable", schedule)
    assert not Schedule.objects.get().enabled


def test_skip_the_next_run(root: Client, act: Act) -> None:
    schedule = made()
    due = schedule.next_run_at
    act(root, "skip_next", schedule)
    run = ScheduleRun.objects.get()
    assert (run.due_at, run.outcome, run.result) == (due, "skipped", "")
    schedule.refresh_from_db()
    assert due is not None
    assert schedule.next_run_at == due + schedule.interval
    assert "is skipped" in logged()


def test_nothing_to_do(root: Client, act: Act) -> None:
    said = act(root, "skip_next", made(enabled=False))
    assert "1 is left as it is: there was nothing to do." in said
    assert not LogEntry.objects.exists()


def test_duplicate(root: Client) -> None:
    schedule = made(labels="a", headers={"x": 1}, priority=3)
    for name in ("s (copy)", "s (copy 2)"):
        from_the_list(root, "duplicate", schedule)
        copy = Schedule.objects.get(name=name)
        assert (copy.enabled, copy.next_run_at) == (False, None)
        assert (copy.task, copy.args, copy.interval) == (
            "tests.tasks.add",
            [1, 2],
            schedule.interval,
        )
        assert (copy.labels, copy.headers, copy.priority) == ("a", {"x": 1}, 3)
        assert copy.declared is None


def test_reset_to_code_asks_first(root: Client, act: Act) -> None:
    schedule = made(declared={"enabled": True, "queue": "low"}, queue="high")
    page = root.get(page_of(schedule)).content.decode()
    assert "Declared in code, and edited here: queue." in page
    page = act(root, "reset", schedule)
    assert "What was edited in the admin is lost" in page
    assert Schedule.objects.get().queue == "high"
    act(root, "reset", schedule, confirmed="yes")
    assert Schedule.objects.get().queue == "low"
    assert logged() == "Reset to what code declares."
    page = root.get(page_of(schedule)).content.decode()
    assert 'id="jobs-reset"' not in page


@pytest.mark.parametrize(
    ("permission", "allowed"),
    [
        ("view", set()),
        ("run", {"run_now"}),
        ("change", {"enable", "disable", "skip_next", "reset"}),
        ("add", {"duplicate"}),
    ],
)
def test_each_behind_its_permission(permission: str, allowed: set[str]) -> None:
    client = staff(*{f"jobs.{name}_schedule" for name in ("view", permission)})
    schedule = made(declared={"queue": ""}, queue="high")
    page: Any = client.get(LIST)
    form = page.context["action_form"]
    offered = {name for name, _label in form.fields["action"].choices} if form else set()
    assert offered - {""} == allowed
    buttons = client.get(page_of(schedule)).content.decode()
    for verb in ("run_now", "disable", "skip_next", "duplicate", "reset"):
        assert (f'id="jobs-{verb}"' in buttons) == (verb in allowed), verb
        if verb not in allowed:
            assert client.post(page_of(schedule, verb)).status_code == 403
            from_the_list(client, verb, schedule)
    schedule.refresh_from_db()
    assert schedule.enabled
    assert not LogEntry.objects.exists()


def test_strange_addresses(root: Client) -> None:
    schedule = made()
    assert root.get(page_of(schedule, "disable")).url == page_of(schedule)
    assert Schedule.objects.get().enabled
    assert "not there any more" in root.post(f"{LIST}99999/disable/", follow=True).content.decode()
