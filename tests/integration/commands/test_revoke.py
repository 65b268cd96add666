"""`manage.py jobs_revoke`."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import broker
from jobs.broker.base import Revocation
from jobs.models import TaskResult
from jobs.states import State
from tests.integration.commands.helpers import fail, run
from tests.models import Run
from tests.project import Project
from tests.services import Valkey
from tests.tasks import trace, wait_at
from tests.workers import Gate, ready_worker, work

pytestmark = pytest.mark.django_db(transaction=True)


def test_they_do_not_run(broker_url: str) -> None:
    first, second, third = (trace.delay(label) for label in "abc")
    printed = run("jobs_revoke", first.id, second.id)
    assert printed == f"{first.id} is revoked.\n{second.id} is revoked.\n"
    work()
    assert [r.state for r in (first, second, third)] == ["REVOKED", "REVOKED", "SUCCESS"]
    assert Run.objects.get().label == "c"


def test_what_has_ended_stays_as_it_is(broker_url: str) -> None:
    done = trace.delay("a")
    work()
    assert run("jobs_revoke", done.id) == f"{done.id} has ended already: SUCCESS.\n"
    assert broker.get().revoked("default", [done.id]) == [Revocation.NONE]


def test_remembered_until_it_is_due(broker_url: str, valkey_server: Valkey) -> None:
    month = 30 * 86_400
    with transaction.atomic():
        later = trace.apply_async(("a",), countdown=month)
    run("jobs_revoke", later.id)
    with valkey_server.client() as client:
        until = client.zscore("{default}:revoked", later.id)
        now = client.time()[0]
    assert until / 1000 - now > month  # type: ignore[operator]


def test_what_runs_is_ended_if_asked(project: Project, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    ready_worker(project, "--processes", "1")
    running = wait_at.delay(gate.path)
    gate.wait_for()
    assert "is revoked" in project.run("jobs_revoke", running.id, "--terminate")
    project.wait_for(lambda: TaskResult.objects.filter(state=State.REVOKED).exists())
    assert running.state == State.REVOKED


def test_the_broker_is_away(settings: Settings) -> None:
    assert "can't be used" in fail("jobs_revoke", "an-id")[2]
