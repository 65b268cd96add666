"""The pages in setups that are allowed and rare."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.test import Client
from pytest_django import Settings

from jobs import broker, control, message, registry, task
from jobs.broker.base import Outgoing
from jobs.message import Message
from jobs.models import TaskResult
from tests.integration.admin.conftest import bury, row, staff
from tests.integration.admin.test_junk import PAGES
from tests.services import Valkey
from tests.tasks import trace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("short_lists")]

EVERY = (
    *PAGES,
    "/admin/jobs/schedule/",
    "/admin/jobs/schedule/add/",
    "/admin/jobs/queues/history/",
)


def look(client: Client, *more: str) -> None:
    for url in (*EVERY, *more):
        answer = client.get(url)
        assert answer.status_code == 200, url


def call() -> Message:
    sent = Message(task=trace.name, id=message.new_id(), queue="default", args=["x"])
    broker.get().push([Outgoing("default", message.encode(sent))])
    return sent


def test_a_broker_in_memory(root: Client, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "memory://"}
    sent = call()
    look(root, f"/admin/jobs/queues/call/default/{sent.id}/")


def test_without_time_zones(root: Client, broker_url: str, settings: Settings) -> None:
    assert django_settings.USE_TZ
    one = row(state="FAILURE", error_type="a.B")
    sent = call()
    bury(b"x")
    settings.USE_TZ = False
    look(
        root,
        f"/admin/jobs/queues/call/default/{sent.id}/",
        "/admin/jobs/taskresult/?since=90m&until=2036-01-01",
    )
    assert one.pk


@pytest.mark.one_version
def test_a_thousand_queues(root: Client, broker_url: str, settings: Settings) -> None:
    queues = {f"q{n}": {} for n in range(1000)}
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}, **queues}}
    look(root)


def test_a_long_name_of_a_task(root: Client, broker_url: str) -> None:
    name = "<b>é&\"'/" + "x" * 247
    made = task(name=name)(lambda a=1: None)
    try:
        made.delay()
        control.pause_task(name, by="ann", why="<script>alert(1)</script>")
        one = row(task=name, state="FAILURE", error_type="y" * 255, error="<script>alert(1)")
        look(root, f"/admin/jobs/taskresult/{one.pk}/change/")
        for url in EVERY:
            page = root.get(url).content.decode()
            assert "<script>alert" not in page
            assert "<b>é" not in page
    finally:
        del registry.tasks[name]


def test_a_replica_that_can_only_be_read(
    root: Client, own_valkey: Valkey, settings: Settings
) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": own_valkey.url}
    call()
    with redis.Redis.from_url(own_valkey.url) as server:
        server.replicaof("127.0.0.1", 1)
    look(root)
    root.post("/admin/jobs/queues/pause/default/", {"why": ""})
    assert "not done" in LogEntry.objects.get().change_message


# ------------------------------------------------------------------------------ two people


def failure() -> TaskResult:
    sent = Message(task=trace.name, id=message.new_id(), queue="default", args=["x"])
    return row(
        id=sent.id, task=trace.name, state="FAILURE", error_type="a.B", message=message.encode(sent)
    )


@pytest.mark.django_db(transaction=True)
def test_pressed_twice(root: Client, broker_url: str) -> None:
    """By two people, or with the back button."""
    one = failure()
    other = staff(superuser=True)
    url = f"/admin/jobs/taskresult/{one.pk}/again/"
    for client in (root, other, root):
        client.post(url, {"confirmed": "yes"})
    assert broker.get().stats("default").waiting == 1
    assert LogEntry.objects.count() == 1
    for _ in range(2):
        root.post("/admin/jobs/queues/pause/default/", {"why": "first"})
    for client in (root, other):
        client.post("/admin/jobs/queues/resume/default/")
    assert control.paused() == {}
    (waiting,) = broker.get().peek("default", 0, 5)
    assert waiting.raw
    page = root.get("/admin/jobs/queues/queue/default/").content.decode()
    key = page.partition('name="key" value="')[2].partition('"')[0]
    fields: dict[str, Any] = {"action": "delete", "key": key, "confirmed": "yes"}
    for client in (root, other):
        client.post("/admin/jobs/queues/queue/default/?tab=waiting", fields)
    assert broker.get().stats("default").waiting == 0
    assert LogEntry.objects.filter(change_message="Deleted.").count() == 1


def test_a_session_that_ends(root: Client, broker_url: str) -> None:
    """A live part leads to the page to sign in, and never shows it as a part."""
    one = row(state="PENDING", finished_at=None)
    root.logout()
    for url in (
        "dashboard/live/",
        "dashboard/numbers/",
        "queues/live/",
        "workers/live/",
        "workers/live-worker/w/",
        f"taskresult/{one.pk}/live/",
    ):
        answer = root.get(f"/admin/jobs/{url}", headers={"HX-Request": "true"})
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")
