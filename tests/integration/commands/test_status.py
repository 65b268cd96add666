"""`manage.py jobs_status`."""

from __future__ import annotations

import datetime as dt
import json
import re
import threading

import pytest
from django.db import connections, transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import broker, control
from jobs.beat import Beat
from jobs.broker.base import SCHEDULES
from jobs.control import attention
from jobs.ledger import recovery
from jobs.models import Schedule, TaskResult
from tests.integration.commands.helpers import fail, run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import trace
from tests.workers import put

pytestmark = pytest.mark.django_db(transaction=True)


def bury() -> None:
    put(b"not json")
    ((number, _),) = broker.get().claim("default", "reader", 1, 1, 60).messages
    broker.get().dead_letter("default", "reader", number, "why", "reader")


def test_all_is_well(broker_url: str) -> None:
    broker.get().renew("default", ["one", "two"], 60)
    trace.delay("waiting")
    trace.apply_async(("due",), countdown=3600)
    printed = run("jobs_status")
    assert [" ".join(line.split()) for line in printed.splitlines()] == [
        "queue waiting in flight due later dead workers",
        "high 0 0 0 0 0",
        "default 1 0 1 0 2",
        "low 0 0 0 0 0",
    ]


def test_messages_without_a_worker(broker_url: str) -> None:
    trace.delay("a")
    status, printed, wrong = fail("jobs_status")
    assert status == 1
    assert printed.startswith("queue")
    assert wrong == "1 messages of the queue 'default', and no worker claims from it."


def test_those_of_a_vanished_worker(broker_url: str) -> None:
    trace.delay("a")
    broker.get().claim("default", "gone", 1, 1, 60)
    assert run("jobs_status")
    broker.get().renew("default", ["gone"], -1)
    assert fail("jobs_status")[0] == 1


def test_what_is_due_later_needs_no_worker_now(broker_url: str) -> None:
    trace.apply_async(("due",), countdown=3600)
    assert run("jobs_status")


def test_dead_letters_if_asked(broker_url: str) -> None:
    bury()
    broker.get().leave("default", "reader")
    assert run("jobs_status")
    status, _, wrong = fail("jobs_status", "--fail-on-dead")
    assert (status, "1 dead letters of the queue 'default'" in wrong) == (1, True)


def test_what_nobody_publishes(broker_url: str) -> None:
    half_a_minute_ago = timezone.now() - dt.timedelta(seconds=30)
    row = TaskResult.objects.create(id="a", task="x", queue="default", created_at=half_a_minute_ago)
    assert re.search(r"not yet published: 3\d s ago", run("jobs_status"))
    row.created_at = timezone.now() - dt.timedelta(minutes=5)
    row.save()
    status, _, wrong = fail("jobs_status")
    assert status == 1
    assert re.search(r"committed 30\d s ago", wrong)


def test_the_broker_is_away(db: None) -> None:
    status, printed, wrong = fail("jobs_status")
    assert (status, printed) == (2, "")
    assert "can't be used" in wrong


def test_settings_that_are_wrong(settings: Settings) -> None:
    settings.JOBS = {"BROKER_ULR": "x"}
    status, _, wrong = fail("jobs_status")
    assert status == 1
    assert "Did you mean 'BROKER_URL'?" in wrong


def test_json(broker_url: str) -> None:
    broker.get().renew("high", ["one"], 60)
    told = json.loads(run("jobs_status", "--json"))
    assert told["queues"]["high"] == {
        "waiting": 0,
        "in_flight": 0,
        "due": 0,
        "dead": 0,
        "workers": 1,
    }
    assert list(told["queues"]) == ["high", "default", "low"]
    assert (told["problems"], told["oldest_unpublished_seconds"]) == ([], None)


def test_json_of_a_problem(broker_url: str) -> None:
    trace.delay("a")
    status, printed, wrong = fail("jobs_status", "--json")
    assert status == 1
    assert json.loads(printed)["problems"] == [wrong]


def test_json_of_a_broker_that_is_away(db: None) -> None:
    status, printed, wrong = fail("jobs_status", "--json")
    assert status == 2
    assert json.loads(printed) == {
        "queues": {},
        "paused_queues": {},
        "paused_tasks": {},
        "oldest_unpublished_seconds": None,
        "metrics": None,
        "problems": [wrong],
    }


def test_what_is_paused(broker_url: str) -> None:
    control.pause("low", by="ada", why="the shop moves")
    control.pause_task(trace.name, by="bob")
    *_, queue, task = run("jobs_status").splitlines()
    assert queue.startswith("queue low: paused by ada at 2")
    assert queue.endswith(": the shop moves")
    assert task.startswith("task tests.tasks.trace: paused by bob at 2")
    told = json.loads(run("jobs_status", "--json"))
    assert told["paused_queues"]["low"]["why"] == "the shop moves"
    assert list(told["paused_tasks"]) == [trace.name]


def test_exit_statuses_of_the_process(project: Project) -> None:
    assert project.run("jobs_status").startswith("queue")
    trace.delay("a")
    assert "no worker claims" in project.run("jobs_status", status=1)
    project.valkey.stop()
    assert "Traceback" not in project.run("jobs_status", status=2)


def test_json_of_the_numbers(broker_url: str) -> None:
    broker.get().renew("default", ["one"], 60)
    trace.delay("a")
    broker.get().count("default", {"failed": 2}, {"shop.pay": {"failed": 2}})
    told = json.loads(run("jobs_status", "--json"))["metrics"]
    assert list(told) == ["hour", "day", "week"]
    for period in told.values():
        assert (period["total"]["sent"], period["total"]["failed"]) == (1, 2)
        assert period["queues"]["default"] == period["total"]
        assert period["queues"]["low"]["failed"] == 0
        assert period["tasks"]["shop.pay"]["failed"] == 2


def test_json_without_metrics(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "METRICS": False}
    assert json.loads(run("jobs_status", "--json"))["metrics"] is None


@pytest.fixture
def sent_long_ago(broker_url: str) -> None:
    """Two calls that wait, sent in a transaction ten minutes ago."""
    broker.get().renew("default", ["one"], 60)
    with transaction.atomic():
        trace.delay("a")
        trace.delay("b")
    TaskResult.objects.update(published_at=timezone.now() - dt.timedelta(minutes=10))


def test_calls_that_redis_has_lost(sent_long_ago: None) -> None:
    assert run("jobs_status")
    broker.get().claim("default", "one", 1, 1, 60)
    assert run("jobs_status")
    broker.get().ack("default", "one", [1])
    status, _, wrong = fail("jobs_status")
    assert (status, "lost the messages of at least 1 calls; see jobs_recover" in wrong) == (1, True)


def test_a_lost_call_that_had_started(broker_url: str) -> None:
    broker.get().renew("default", ["one"], 60)
    with transaction.atomic():
        trace.delay("a")
    long_ago = timezone.now() - dt.timedelta(minutes=10)
    TaskResult.objects.update(state="STARTED", published_at=long_ago, started_at=long_ago)
    broker.get().claim("default", "one", 1, 1, 60)
    assert run("jobs_status")
    broker.get().ack("default", "one", [1])
    assert "at least 1 calls" in fail("jobs_status")[2]


def test_lost_calls_behind_many_messages(
    sent_long_ago: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_READ", 0)
    assert run("jobs_status")
    broker.get().claim("default", "one", 1, 2, 60)
    broker.get().ack("default", "one", [1])
    status, _, wrong = fail("jobs_status")
    assert (status, "at least 1 calls" in wrong) == (1, True)
    monkeypatch.setattr(recovery, "_COUNTED", 1)  # too many to be counted
    assert run("jobs_status")


def test_a_call_that_ended_meanwhile_is_not_lost(
    sent_long_ago: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_all(queue: str) -> list[bytes]:
        TaskResult.objects.update(state="SUCCESS")
        return []

    monkeypatch.setattr(broker.get(), "scan", end_all)
    assert run("jobs_status")


def test_schedules_that_are_overdue(broker_url: str) -> None:
    schedule = Schedule.objects.create(
        name="nightly", task=trace.name, interval=dt.timedelta(minutes=1)
    )
    soon = timezone.now() - dt.timedelta(seconds=10)
    Schedule.objects.filter(pk=schedule.pk).update(next_run_at=soon)
    with broker.get().subscribe(SCHEDULES):  # as a beat does
        assert run("jobs_status")
        late = soon - dt.timedelta(minutes=1)
        Schedule.objects.filter(pk=schedule.pk).update(next_run_at=late)
        status, _, wrong = fail("jobs_status")
        assert (status, wrong) == (1, "1 schedules are overdue. Is beat running?")
        Schedule.objects.filter(pk=schedule.pk).update(enabled=False)
        assert run("jobs_status")


def test_schedules_without_a_beat(broker_url: str) -> None:
    schedule = Schedule.objects.create(
        name="nightly", task=trace.name, interval=dt.timedelta(days=1)
    )
    status, printed, wrong = fail("jobs_status", "--json")
    assert (status, wrong) == (1, attention.no_beat())
    assert json.loads(printed)["problems"] == [wrong]
    beat = Beat()

    def run_beat() -> None:
        try:
            beat.run()
        finally:
            connections.close_all()

    running = threading.Thread(target=run_beat)
    running.start()
    try:
        wait_for(lambda: broker.get().listeners(SCHEDULES), what="beat")
        assert run("jobs_status")
    finally:
        beat.stop()
        running.join()
    schedule.enabled = False
    schedule.save()
    assert run("jobs_status")
