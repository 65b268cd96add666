"""Whole queues paused, resumed and purged in the admin; what is shown of pauses and workers."""

from __future__ import annotations

import json
import time
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.db import connection, transaction
from django.test import Client

from jobs import broker, control
from jobs.broker.base import Outgoing
from jobs.models import TaskResult
from tests.integration.admin.conftest import SIGN_IN, letter, staff
from tests.services import Valkey
from tests.tasks import add, trace

pytestmark = pytest.mark.django_db

OVERVIEW = "/admin/jobs/queues/"
LIVE = "/admin/jobs/queues/live/"
PAUSE = "/admin/jobs/queues/pause/default/"
RESUME = "/admin/jobs/queues/resume/default/"
PURGE = "/admin/jobs/queues/purge/default/"
#: What purging asks for.
TYPED = {"name": "default"}
PAGES = [PAUSE, RESUME, PURGE]


def said(response: object) -> str:
    """The last message."""
    return [str(m) for m in get_messages(response.wsgi_request)][-1]  # type: ignore[attr-defined]


def test_a_queue_is_paused_with_a_reason(root: Client, broker_url: str) -> None:
    assert 'name="why"' in root.get(PAUSE).content.decode()
    assert control.paused() == {}
    response = root.post(PAUSE, {"why": " <b>the shop moves</b> "})
    assert response["Location"] == OVERVIEW
    assert said(response) == "Queue “default” is paused."
    pause = control.paused()["default"]
    assert (pause.by, pause.why) == ("user0", "<b>the shop moves</b>")
    for url in (OVERVIEW, LIVE):
        page = root.get(url).content.decode()
        assert "by user0 since 2" in page
        assert "&lt;b&gt;the shop moves&lt;/b&gt;" in page
        assert f'href="{RESUME}"' in page
        assert f'href="{PAUSE}"' not in page


def test_a_reason_is_one_line(
    root: Client, broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Or it could look like other lines of a log."""
    root.post(PAUSE, {"why": "x\r\nERROR all is lost\x1b[2J\u2028y\0\x85z"})
    assert control.paused()["default"].why == "x ERROR all is lost [2J y z"
    assert "\n" not in caplog.records[-1].getMessage()


def test_a_queue_is_resumed(root: Client, broker_url: str) -> None:
    assert "is not paused" in root.get(RESUME).content.decode()
    control.pause("default", by="ada", why="the shop moves")
    broker.get().push([Outgoing("default", b"x")])
    page = root.get(RESUME).content.decode()
    assert "1 message waits, and will be run at once." in page
    assert "paused by ada" in page
    assert said(root.post(RESUME)) == "Queue “default” is resumed."
    assert control.paused() == {}
    assert said(root.post(RESUME)) == "Queue “default” was not paused."


@pytest.mark.django_db(transaction=True)
def test_purging_asks_first(root: Client, broker_url: str) -> None:
    with transaction.atomic():
        for n in range(3):
            trace.delay(str(n))
        trace.apply_async(("later",), countdown=600)
    page = root.get(PURGE).content.decode()
    assert "3 messages that wait on queue “default” will be deleted for good." in page
    assert "Also 1 message that is due later" in page
    assert broker.get().stats("default").waiting == 3
    assert said(root.post(PURGE, TYPED)) == "3 messages deleted."
    assert broker.get().stats("default")[:3] == (0, 0, 1)
    assert said(root.post(PURGE, {**TYPED, "due": "yes"})) == "1 message deleted."
    assert set(TaskResult.objects.values_list("state", "error")) == {("REVOKED", "purged")}


def test_each_needs_its_permission(broker_url: str) -> None:
    control.pause("default")
    broker.get().push([Outgoing("default", b"x")])
    viewer = staff("jobs.view_queues", "jobs.delete_taskresult", "jobs.retry_taskresult")
    for url in PAGES:
        assert viewer.get(url).status_code == 403
        assert viewer.post(url).status_code == 403
        assert Client().post(url)["Location"].startswith(SIGN_IN)
    page = viewer.get(LIVE).content.decode()
    assert "paused" in page
    assert not any(url in page for url in PAGES)
    assert list(control.paused()) == ["default"]
    assert broker.get().stats("default").waiting == 1
    manager = staff("jobs.manage_queues")
    assert PURGE in manager.get(LIVE).content.decode()
    assert manager.post(RESUME).status_code == 302
    assert control.paused() == {}


@pytest.mark.parametrize("url", PAGES)
def test_they_are_protected_from_other_sites(root: Client, broker_url: str, url: str) -> None:
    control.pause("default")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    assert strict.post(url).status_code == 403
    assert strict.get(url).status_code == 200
    assert list(control.paused()) == ["default"]


@pytest.mark.parametrize("url", PAGES)
def test_an_unknown_queue(root: Client, broker_url: str, url: str) -> None:
    assert root.get(url.replace("default", "nowhere")).status_code == 404
    assert root.post(url.replace("default", "nowhere")).status_code == 404


def test_with_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    for url in PAGES:
        response = root.post(url, TYPED)
        assert response.status_code == 302
        assert "can't be used" in said(response)
    assert root.get(PURGE).status_code == 302


@pytest.mark.django_db(transaction=True)
def test_what_each_process_does_now(root: Client, broker_url: str) -> None:
    for n in range(7):
        add.delay(n, n)
    broker.get().claim("default", "w/1.a", 1, 7, 60)
    running = [["default", "w/1.a", n, time.time() - 5400] for n in range(1, 8)]
    report = {
        "host": "box",
        "pid": 7,
        "started": 1.7e9,
        "queues": ["default"],
        "processes": 1,
        "processed": 3,
        "consumers": ["w/1.a"],
        "running": running,
    }
    broker.get().report("default", "w", json.dumps(report).encode())
    page = root.get("/admin/jobs/workers/live/").content.decode()
    assert page.count("tests.tasks.add") == 5
    assert "1 h 30 min" in page
    assert "and 2 more" in page


PAUSE_TASK = "/admin/jobs/queues/pause-task/"
RESUME_TASK = f"/admin/jobs/queues/resume-task/{trace.name}/"


def test_a_task_is_paused_with_a_reason(root: Client, broker_url: str) -> None:
    page = root.get(PAUSE_TASK, {"task": trace.name}).content.decode()
    assert f'<option value="{trace.name}" selected>' in page
    assert f'<option value="{add.name}">' in page
    assert f'href="{PAUSE_TASK}"' in root.get(OVERVIEW).content.decode()
    response = root.post(PAUSE_TASK, {"task": trace.name, "why": " it <b>mails</b> twice "})
    assert (response["Location"], said(response)) == (OVERVIEW, f"Task “{trace.name}” is paused.")
    pause = control.paused_tasks()[trace.name]
    assert (pause.by, pause.why) == ("user0", "it <b>mails</b> twice")
    page = root.get(LIVE).content.decode()
    assert "Task “tests.tasks.trace” is paused by user0 since 2" in page
    assert "it &lt;b&gt;mails&lt;/b&gt; twice" in page
    assert f'href="{RESUME_TASK}"' in page


def test_a_task_is_resumed(root: Client, broker_url: str) -> None:
    assert "is not paused" in root.get(RESUME_TASK).content.decode()
    control.pause_task(trace.name, by="ada", why="it mails twice")
    page = root.get(RESUME_TASK).content.decode()
    assert "paused by ada" in page
    assert "it mails twice" in page
    assert said(root.post(RESUME_TASK)) == f"Task “{trace.name}” is resumed."
    assert control.paused_tasks() == {}
    assert said(root.post(RESUME_TASK)) == f"Task “{trace.name}” was not paused."


def test_a_task_that_there_is_not(root: Client, broker_url: str) -> None:
    assert said(root.post(PAUSE_TASK, {"task": "shop.nothing"})) == (
        "There is no task “shop.nothing”."
    )
    assert said(root.post(PAUSE_TASK)) == "There is no task “”."
    assert root.get(RESUME_TASK.replace(trace.name, "shop.nothing")).status_code == 404
    assert control.paused_tasks() == {}


def test_pausing_a_task_needs_the_permission(broker_url: str) -> None:
    control.pause_task(add.name)
    viewer = staff("jobs.view_queues", "jobs.retry_taskresult")
    for url in (PAUSE_TASK, RESUME_TASK):
        assert viewer.get(url).status_code == 403
        assert viewer.post(url, {"task": trace.name}).status_code == 403
        assert Client().post(url)["Location"].startswith(SIGN_IN)
    page = viewer.get(LIVE).content.decode()
    assert f"Task “{add.name}” is paused by ?" in page
    assert "pause-task" not in page
    assert "resume-task" not in page
    assert list(control.paused_tasks()) == [add.name]
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = staff("jobs.manage_queues").cookies
    assert strict.post(PAUSE_TASK, {"task": trace.name}).status_code == 403
    assert strict.get(PAUSE_TASK).status_code == 200


def test_a_task_with_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    for url in (PAUSE_TASK, RESUME_TASK):
        assert "can't be used" in said(root.post(url, {"task": trace.name}))
    assert root.get(RESUME_TASK).status_code == 302
    assert root.get(PAUSE_TASK).status_code == 200


@pytest.mark.parametrize(
    ("permission", "allowed"),
    [
        ("pause_queues", {"pause", "resume", "pause_task", "resume_task"}),
        ("purge_queues", {"purge"}),
        ("requeue_deadletters", {"requeue", "requeue_all"}),
        ("discard_deadletters", {"discard", "discard_all"}),
        ("view_queues", set()),
    ],
)
def test_each_permission_is_for_its_acts(
    broker_url: str, permission: str, allowed: set[str]
) -> None:
    client = staff(f"jobs.{permission}")
    key, _sent = letter()
    dead = "/admin/jobs/deadletters/?queue=default"
    pages = {"pause": PAUSE, "resume": RESUME, "purge": PURGE}
    pages |= {"pause_task": PAUSE_TASK, "resume_task": RESUME_TASK}
    answers = {name: client.get(url).status_code for name, url in pages.items()}
    for action in ("requeue_all", "discard_all", "discard", "requeue"):
        answers[action] = client.post(dead, {"action": action, "key": f"{key}:default"}).status_code
    assert {name for name, status in answers.items() if status != 403} == allowed
    letter()
    live, listed = client.get(LIVE).content.decode(), client.get(dead).content.decode()
    assert (PAUSE in live, PURGE in live) == ("pause" in allowed, "purge" in allowed)
    shown = {verb for verb in ("requeue", "discard") if f'value="{verb}"' in listed}
    assert shown == allowed & {"requeue", "discard"}


def test_the_migration_renames_the_old_permission_and_back() -> None:
    found = Permission.objects.get(codename="manage_queues")
    rename = import_module("jobs.migrations.0008_queue_permissions")
    editor = SimpleNamespace(connection=connection)
    rename.name_as_before(apps, editor)
    found.refresh_from_db()
    assert found.name == "Can requeue and discard dead letters"
    rename.rename(apps, editor)
    found.refresh_from_db()
    assert found.name == "Can do everything with queues and dead letters"


def test_each_question_takes_a_reason_as_long_as_the_log_keeps(
    root: Client, broker_url: str
) -> None:
    control.pause("default")
    control.pause_task(trace.name)
    for url in (PAUSE, RESUME, PURGE, PAUSE_TASK, RESUME_TASK):
        assert 'name="why" id="jobs-why" class="vTextField" maxlength="500"' in (
            root.get(url).content.decode()
        ), url
