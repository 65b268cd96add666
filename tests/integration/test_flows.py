"""docs/internals.md names the files that a call passes. Each of these tests makes such a call and
compares.

A new file on a way is a hop more for whoever reads it, so it fails here until the page names it.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import reverse

from jobs import broker, chord, control, task
from jobs.api.task import Task
from jobs.beat import tick
from jobs.message import Killed
from jobs.models import Schedule
from jobs.worker.board import key
from jobs.worker.supervisor.upkeep import return_deliveries
from tests.integration.beats import NOON, scheduled
from tests.project import ROOT
from tests.tasks import add
from tests.workers import work

pytestmark = [
    pytest.mark.django_db(transaction=True),
]

PAGE = (ROOT / "docs" / "internals.md").read_text("utf-8")


@contextmanager
def followed() -> Iterator[set[str]]:
    """Collect the files of `jobs` in which a function is called, in any thread."""
    files: set[str] = set()
    root = f"{ROOT}/jobs/"

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(root):
            files.add(code.co_filename.removeprefix(f"{ROOT}/"))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  None ends it


def told(title: str) -> set[str]:
    """The files that the table below this heading of the page links to."""
    found = re.search(rf"^### {title}\n(.*?)(?=^##)", PAGE, re.S | re.M)
    assert found, f"docs/internals.md has no section {title!r}"
    return set(re.findall(r"\]\(\.\./(jobs/[^)]+\.py)\)", found[1]))


@task(bind=True, max_retries=1, default_retry_delay=0)
def second_time(self: Task[..., Any]) -> int:
    if not self.request.retries:
        self.retry()
    return 5


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


def send() -> None:
    add.delay(1, 2)


def send_in_a_transaction() -> None:
    with transaction.atomic():
        add.delay(1, 2)


def fails_once() -> None:
    result = second_time.delay()
    work()
    assert result.get() == 5


def join() -> None:
    result = chord([add.s(1, 2), add.s(3, 4)])(total.s())
    work()
    assert result.get() == 10


def fire() -> None:
    tick(NOON)


def pause(client: Client) -> None:
    client.post(reverse("admin:jobs_queues_pause", args=["default"]), {"why": "it moves"})


def terminate(killed: str) -> None:
    """As if the supervisor had killed the process ``killed`` that runs the call."""
    result = add.delay(1, 2)
    [(number, _)] = broker.get().claim("default", killed, 1, 1, 60.0).messages
    control.revoke(result.id, terminate=True)
    return_deliveries(["default"], killed, killed={key("default", number): Killed.REVOKED})
    work()
    assert result.state == "REVOKED"


def compare(title: str, files: set[str], *others: str) -> None:
    """Fail if the call passed a file that neither this section's table names nor the others'."""
    more = files.difference(told(title), *map(told, others))
    assert not more, f"{title}: docs/internals.md doesn't name {sorted(more)}"


@pytest.fixture(autouse=True)
def _warm(transactional_db: None, broker_url: str) -> None:
    """What is made at the first use belongs to no call."""
    send_in_a_transaction()
    send()
    work()


def test_a_call_outside_a_transaction() -> None:
    with followed() as files:
        send()
    compare("A call outside a transaction", files)


def test_a_call_in_a_transaction() -> None:
    with followed() as files:
        send_in_a_transaction()
    compare("A call in a transaction", files)


def test_a_worker_runs_a_call() -> None:
    send()
    with followed() as files:
        work()
    compare("A worker runs a call", files)


def test_a_retry() -> None:
    second_time.delay()
    with followed() as files:
        work()
    compare("A retry", files, "A worker runs a call")


def test_a_chord_is_joined() -> None:
    with followed() as files:
        join()
    compare("A chord is joined", files, "A call in a transaction", "A worker runs a call")


def test_a_due_schedule() -> None:
    Schedule.objects.all().delete()
    scheduled(due=NOON, task=add.name, args=[1, 2])
    with followed() as files:
        fire()
    compare("A due schedule", files, "A call in a transaction")


def test_a_pause_from_the_admin() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    pause(client)
    with followed() as files:
        pause(client)
    assert control.paused()["default"].why == "it moves"
    compare("A pause from the admin", files)


def test_a_terminated_call() -> None:
    terminate("first/1")
    with followed() as files:
        terminate("second/1")
    compare("A terminated call", files, "A call outside a transaction", "A worker runs a call")
