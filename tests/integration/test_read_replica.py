"""With a router that reads from a replica, all that is decided is read where it is written."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    broker,
    chord,
    control,
    ledger,
    message,
)
from jobs.beat.ticking import tick
from jobs.control import acts, selecting
from jobs.ledger import pruning, publish
from jobs.models import Schedule, TaskResult
from jobs.states import State
from jobs.worker.supervisor.upkeep import end_unsendable
from tests import django_tasks as tasks
from tests.tasks import add, echo, fail
from tests.workers import put, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


class Router:
    """As in Django's documentation, with a replica that must not be asked."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        if model._meta.app_label == "jobs":
            raise AssertionError(f"{model.__name__} is read by way of the router: {hints}")
        return None

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


@pytest.fixture(autouse=True)
def _replica(settings: Settings) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.Router"]


def test_calls_and_what_follows_them() -> None:
    plain = add.delay(1, 2)
    joined = chord([add.s(1, 1), add.s(2, 2)], echo.s()).delay()
    chained = (add.s(1, 2) | add.s(3)).delay()
    failed = chord([add.s(1, 1), fail.s("x")], echo.s()).delay()
    with transaction.atomic():
        committed = add.apply_async((5, 5), link=echo.s(), link_error=echo.s())
    work()
    assert plain.get(timeout=5) == 3
    assert joined.get(timeout=5) == [2, 4]
    assert chained.get(timeout=5) == 6
    assert committed.get(timeout=5) == 10
    assert failed.get(timeout=5, propagate=False) is not None
    assert len(committed.children) == 1
    assert joined.state == State.SUCCESS
    assert plain.parent is None
    committed.forget()


def test_what_is_delivered_twice_and_what_is_relayed() -> None:
    task_id = put_message(task=add.name, args=[1, 2])
    work()
    put_message(task=add.name, args=[1, 2], id=task_id)
    ((_, raw),) = broker.get().claim("default", "x", 1, 1, 60).messages
    put(message.mark_redelivered(raw, crashed=False)[0])
    work()
    rows = TaskResult.objects.using("default")
    assert rows.get(id=task_id).state == State.SUCCESS
    with transaction.atomic():
        result = add.delay(1, 2)
    rows.filter(id=result.id).update(published_at=None)
    assert publish.relay(timezone.now() + dt.timedelta(hours=1)) == 1
    work()
    assert rows.get(id=result.id).state == State.SUCCESS


def test_schedules() -> None:
    schedule = Schedule(name="often", task=add.name, args=[1, 2], interval=dt.timedelta(seconds=1))
    schedule.save()
    now = timezone.now()
    for n in range(4):
        tick(now + dt.timedelta(seconds=n))
    work()
    assert TaskResult.objects.using("default").filter(state=State.SUCCESS).exists()


def test_pages_that_people_act_by(admin_client: Client) -> None:
    schedule = Schedule.objects.create(
        name="a", task="tests.tasks.add", interval=dt.timedelta(days=1)
    )
    failed = fail.delay("x")
    work()
    for page in ("taskresult/", f"taskresult/{failed.id}/change/"):
        assert fail.name in admin_client.get(f"/admin/jobs/{page}").content.decode()
    for page in ("schedule/", f"schedule/{schedule.pk}/change/"):
        assert "tests.tasks.add" in admin_client.get(f"/admin/jobs/{page}").content.decode()


def test_what_operators_do() -> None:
    rows = TaskResult.objects.using("default")
    failed = [fail.delay("x").id for _ in range(4)]
    work()
    assert control.retry(failed[0], by="ada")
    work()
    assert ledger.reasons(failed[:1], ["builtins.ValueError"]) != {}
    with transaction.atomic():
        later = add.apply_async((1, 2), countdown=3600)
        gone = add.apply_async((1, 2), countdown=3600)
    TaskResult.objects.using("default").filter(pk=later.id).update(state=State.RETRY)
    assert control.retry_now(later.id)
    control.revoke(gone.id)
    control.pause_task(add.name, by="ada")
    work()
    control.resume_task(add.name)
    work()
    assert later.state == State.SUCCESS
    assert gone.state == State.REVOKED
    found = selecting.Selection(state=State.FAILURE).bounded(ledger.results())[0]
    assert selecting.count(found).number == 4
    assert acts.forget(list(found[:1]), {}) == 1
    for name, args in (
        ("jobs_status", ()),
        ("jobs_recover", ("--apply", "--older-than", "0")),
        ("jobs_retry", ("--task", fail.name)),
        ("jobs_revoke", (failed[1],)),
        ("jobs_prune", ()),
    ):
        with contextlib.suppress(SystemExit):
            call_command(name, *args, stdout=io.StringIO(), stderr=io.StringIO())
    assert pruning.prune(timezone.now() + dt.timedelta(days=1000))
    assert not rows.exclude(state=State.PENDING).exists()


def test_a_result_of_djangos_tasks() -> None:
    result = tasks.add.enqueue(1, b=2)
    work()
    assert tasks.add.get_result(result.id).return_value == 3


def test_what_can_never_be_sent() -> None:
    """The relay reads few columns of a row, and whoever ends the call reads others."""
    with transaction.atomic():
        sent = add.delay(1, 2)
    rows = TaskResult.objects.using("default").filter(pk=sent.id)
    rows.update(published_at=None, message=b"no message")
    publish.relay(timezone.now() + dt.timedelta(hours=1), end_unsendable)
    assert rows.get().state == State.FAILURE


def test_acts_of_the_admin(admin_client: Client) -> None:
    failed = [fail.delay("x").id for _ in range(3)]
    work()
    results = "/admin/jobs/taskresult/"
    for action, which in (("run_again", failed[:1]), ("delete_selected", failed[1:2])):
        sent = {"action": action, "_selected_action": which}
        for more in ({}, {"confirmed": "yes", "post": "yes"}):
            assert admin_client.post(results, {**sent, **more}, follow=True).status_code == 200
    every = {"action": "run_again", "select_across": "1", "_selected_action": failed[2:]}
    assert admin_client.post(results, {**every, "confirmed": "yes"}).status_code in (200, 302)
    for page in ("errors/", "tasks/", "queues/", "workers/", "deadletters/", "dashboard/"):
        assert admin_client.get(f"/admin/jobs/{page}").status_code == 200
    for action in ("export_csv", "export_json"):
        exported = {"action": action, "select_across": "1", "_selected_action": failed[:1]}
        answer = admin_client.post(results, exported)
        assert b"".join(answer.streaming_content)


class Reading(Router):
    """Lists may be read from the replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == "jobs" else None


@pytest.fixture
def replica(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A replica that has not received a row yet."""
    if connection.vendor != "sqlite":
        pytest.skip("the same on every database")
    connection.ensure_connection()
    with contextlib.closing(sqlite3.connect(tmp_path / "replica")) as copy:
        connection.connection.backup(copy)
    settings.DATABASE_ROUTERS = [f"{__name__}.Reading"]
    databases = connections.databases
    databases["replica"] = {**databases["default"], "NAME": str(tmp_path / "replica")}
    lagging = connections["replica"]
    # Django's tests forbid this method to all databases that they were not told of.
    monkeypatch.setattr(
        lagging, "ensure_connection", lambda: lagging.connection or lagging.connect()
    )
    yield
    connections["replica"].close()
    del databases["replica"], connections["replica"]


@pytest.mark.usefixtures("replica")
def test_lists_from_a_replica(settings: Settings, admin_client: Client) -> None:
    failed = fail.delay("x")
    work()
    results, errors = "/admin/jobs/taskresult/", "/admin/jobs/errors/"
    assert failed.id in admin_client.get(results).content.decode()
    assert "ValueError" in admin_client.get(errors).content.decode()
    settings.JOBS = {**settings.JOBS, "LISTS_FROM_REPLICA": True}
    assert failed.id not in admin_client.get(results).content.decode()
    assert "ValueError" not in admin_client.get(errors).content.decode()
    assert fail.name in admin_client.get(f"{results}{failed.id}/change/").content.decode()
    sent = {"action": "run_again", "_selected_action": [failed.id], "confirmed": "yes"}
    admin_client.post(results, sent)
    assert failed.state == State.PENDING
    work()
    assert failed.state == State.FAILURE
