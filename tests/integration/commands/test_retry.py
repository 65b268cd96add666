"""`manage.py jobs_retry`."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from django.utils import timezone

from jobs.models import TaskResult
from tests.integration.admin.conftest import row
from tests.integration.admin.test_all_that_match import failures
from tests.integration.admin.test_results import made_at
from tests.integration.commands.helpers import Terminal, fail, run
from tests.models import Run
from tests.tasks import trace
from tests.workers import work

pytestmark = pytest.mark.django_db(transaction=True)


def states() -> list[str]:
    return sorted(TaskResult.objects.values_list("state", flat=True))


def test_by_filters(broker_url: str) -> None:
    failures(250)
    failures(2, error_type="builtins.KeyError")
    failures(1, queue="high")
    failures(1, state="REVOKED")
    row()
    printed = run("jobs_retry", "--task", trace.name, "--error", "ValueError", "--queue", "default")
    assert printed == (
        f"       250 {trace.name} builtins.ValueError\n250 of 250 calls are run again.\n"
    )
    work()
    assert Run.objects.count() == 250
    assert states().count("FAILURE") == 3
    assert "REVOKED" in states()


def test_by_label(broker_url: str) -> None:
    failures(2, label="import 2026-11")
    failures(1, label="import 2026-12")
    failures(1)
    assert "2 of 2 calls" in run("jobs_retry", "--label", "import 2026-11")
    assert states() == ["FAILURE", "FAILURE", "PENDING", "PENDING"]
    assert "1 of 1 call " in run("jobs_retry", "--label", "import 2026-12", "--since", "1h")


def test_by_ids(broker_url: str) -> None:
    first, second, third = failures(3)
    revoked = failures(1, state="REVOKED")[0]
    assert "2 of 2 calls" in run("jobs_retry", first.pk, revoked.pk, "unknown")
    work()
    assert states() == ["FAILURE", "FAILURE", "SUCCESS", "SUCCESS"]
    assert run("jobs_retry", second.pk, third.pk, "--task", "other") == "No call matches.\n"


def test_by_time(broker_url: str) -> None:
    now = timezone.now()
    for hours in (1, 3, 5):
        at = now - dt.timedelta(hours=hours)
        failures(1)
        newest = TaskResult.objects.order_by("pk").last()
        assert newest is not None
        TaskResult.objects.filter(pk=newest.pk).update(id=made_at(at), created_at=at)
    assert "2 calls would" in run("jobs_retry", "--since", "4h", "--dry-run")
    until = (now - dt.timedelta(hours=2)).isoformat()
    assert "2 calls would" in run("jobs_retry", "--until", until, "--dry-run")
    assert "1 call would" in run("jobs_retry", "--since", "4h", "--until", "2h", "--dry-run")
    assert "No call" in run("jobs_retry", "--since", "30m")


def test_a_dry_run_changes_nothing(broker_url: str) -> None:
    failures(3)
    assert "3 calls would be run again." in run("jobs_retry", "--error", "ValueError", "--dry-run")
    assert states() == ["FAILURE"] * 3


def test_as_json(broker_url: str) -> None:
    failures(3)
    failures(1, message=b"")
    found = json.loads(run("jobs_retry", "--task", trace.name, "--json", "--dry-run"))
    assert (found["matched"], found["run_again"]) == (4, 0)
    found = json.loads(run("jobs_retry", "--task", trace.name, "--json"))
    assert found == {
        "matched": 4,
        "run_again": 3,  # the message of one isn't kept
        "kinds": [{"task": trace.name, "error": "builtins.ValueError", "count": 4}],
    }


def test_dead_letters_are_left_alone(broker_url: str) -> None:
    failures(1, error_type="jobs.exceptions.WorkerLost")
    assert run("jobs_retry", "--task", trace.name) == "No call matches.\n"


def test_what_is_wrong_is_said(broker_url: str) -> None:
    failures(1)
    assert "Say which calls" in fail("jobs_retry")[2]
    code, printed, said = fail("jobs_retry", "--since", "yesterday")
    assert (code, printed) == (1, "")
    assert "“yesterday” is no time" in said
    assert states() == ["FAILURE"]


def test_progress_is_shown_on_a_terminal(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.management.operating.TELL", 0)
    failures(120)
    terminal = Terminal()
    run("jobs_retry", "--task", trace.name, err=terminal)
    assert "120 calls" in terminal.getvalue()
