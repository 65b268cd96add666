"""With a router that reads from a replica, all that is decided is read where it is written."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    broker,
    chord,
    message,
)
from jobs.beat.ticking import tick
from jobs.ledger import publish
from jobs.models import Schedule, TaskResult
from jobs.states import State
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
