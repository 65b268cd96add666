"""`manage.py jobs_recover`."""

from __future__ import annotations

import datetime as dt
import io
import shutil
from collections.abc import Callable

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import broker, task
from jobs.management import operating
from jobs.models import TaskResult
from tests.integration.commands.helpers import Terminal, fail, run
from tests.models import Run
from tests.project import Project
from tests.services import Valkey
from tests.tasks import add, trace
from tests.workers import on_redis, work

pytestmark = pytest.mark.django_db(transaction=True)


@task(acks="early")
def once_at_most(label: str) -> None:
    Run.objects.create(label=label)


@pytest.fixture
def lose(broker_url: str, valkey_server: Valkey) -> Callable[[], None]:
    def flush() -> None:
        with valkey_server.client() as client:
            client.flushall()

    return flush


def send(count: int) -> list[str]:
    with transaction.atomic():
        return [trace.delay(f"task {n}").id for n in range(count)]


def test_without_apply_it_only_tells(lose: Callable[[], None]) -> None:
    sent = send(23)
    with transaction.atomic():
        added = add.delay(1, 2).id
    lose()
    printed = run("jobs_recover", "--older-than", "0").splitlines()
    shown = sorted([*sent, added])[:20]
    assert [line.split()[1:] for line in printed[:20]] == [["default", "PENDING"]] * 20
    assert [line.partition("[")[2][:36] for line in printed[:20]] == shown
    assert [" ".join(line.split()) for line in printed[20:]] == [
        "… and 4 more",
        "1 tests.tasks.add",
        "23 tests.tasks.trace",
        "24 calls are lost; --apply sends them again.",
    ]
    assert on_redis() == (0, 0)


def test_applied_it_sends_them_again(lose: Callable[[], None]) -> None:
    send(3)
    lose()
    printed = run("jobs_recover", "--older-than", "0", "--apply")
    assert "3 of 3 lost calls are sent again." in printed
    assert "No call is lost." in run("jobs_recover", "--older-than", "0", "--apply")
    work()
    assert Run.objects.count() == 3
    assert "No call is lost." in run("jobs_recover", "--older-than", "0")


def test_what_is_a_minute_old_by_default(lose: Callable[[], None]) -> None:
    send(1)
    lose()
    assert "No call is lost." in run("jobs_recover")
    TaskResult.objects.update(published_at=timezone.now() - dt.timedelta(seconds=61))
    assert "1 calls are lost" in run("jobs_recover")


def test_what_may_have_run_is_not_run_again(lose: Callable[[], None]) -> None:
    with transaction.atomic():
        once_at_most.delay("a")
    lose()
    assert "No call is lost." in run("jobs_recover", "--older-than", "0")


def test_a_queue_that_is_gone_is_told_of(lose: Callable[[], None], settings: Settings) -> None:
    with transaction.atomic():
        trace.apply_async(("a",), queue="low")
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}}}
    err = io.StringIO()
    run("jobs_recover", "--older-than", "0", err=err)
    assert "1 calls wait on the queue 'low', which JOBS['QUEUES'] does not declare" in (
        err.getvalue()
    )


def test_progress_on_a_terminal(lose: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "TELL", 0)
    send(400)
    broker.get().claim("default", "reader", 1, 100, 60)
    err = Terminal()
    printed = run("jobs_recover", "--older-than", "0", err=err)
    assert "No call is lost." in printed
    last = err.getvalue().split("\r")
    assert "100 messages read, 0 calls lost, 0 sent again" in last
    assert last[-2].isspace()  # wiped
    assert last[-1] == ""


def test_nothing_of_it_elsewhere(lose: Callable[[], None]) -> None:
    send(400)
    err = io.StringIO()
    run("jobs_recover", "--older-than", "0", err=err)
    assert err.getvalue() == ""


def test_a_broker_that_is_away_is_told(db: None) -> None:
    with transaction.atomic():
        TaskResult.objects.create(
            id="a", task="x", queue="default", message=b"{}", published_at=timezone.now()
        )
    status, _, wrong = fail("jobs_recover", "--older-than", "0")
    assert status == 1
    assert "can't be used" in wrong


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_an_age_that_is_none(broker_url: str, seconds: str) -> None:
    assert "number of seconds" in fail("jobs_recover", f"--older-than={seconds}")[2]


def test_a_server_that_comes_back_empty(project: Project) -> None:
    """The whole way, with real processes."""
    send(5)
    project.valkey.kill()
    shutil.rmtree(project.valkey.folder / "appendonlydir")
    project.valkey.start()
    broker.get().close()
    assert on_redis() == (0, 0)
    assert "5 of 5 lost" in project.run("jobs_recover", "--older-than", "0", "--apply")
    project.run("runworker", "--processes", "1", "--burst")
    assert Run.objects.count() == 5
