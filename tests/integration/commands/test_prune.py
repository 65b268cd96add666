"""`manage.py jobs_prune`."""

from __future__ import annotations

import datetime as dt
import io

import pytest

from jobs.ledger import pruning
from jobs.management import operating
from jobs.models import TaskResult
from jobs.states import State
from tests.integration.commands.helpers import Terminal, run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _old_results() -> None:
    now = dt.datetime.now(dt.UTC)
    for state, days in ((State.SUCCESS, 8), (State.SUCCESS, 6), (State.FAILURE, 31)):
        TaskResult.objects.create(
            id=f"0-{state}-{days}",
            task="a",
            queue="default",
            state=state,
            finished_at=now - dt.timedelta(days=days),
        )


def lines(*args: str) -> list[str]:
    return [" ".join(line.split()) for line in run("jobs_prune", *args).splitlines()]


def test_a_dry_run_only_counts() -> None:
    assert lines("--dry-run") == ["1 FAILURE", "1 SUCCESS", "2 rows would be deleted."]
    assert TaskResult.objects.count() == 3


def test_it_deletes() -> None:
    assert lines() == ["1 FAILURE", "1 SUCCESS", "2 rows are deleted."]
    assert [row.id for row in TaskResult.objects.all()] == ["0-SUCCESS-6"]
    assert lines() == ["Nothing is old enough."]
    assert lines("--dry-run") == ["Nothing is old enough."]


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "TELL", 0)
    monkeypatch.setattr(pruning, "_BATCH", 1)
    err = Terminal()
    run("jobs_prune", err=err)
    told = err.getvalue().split("\r")
    assert [line.strip() for line in told] == [
        "",
        "1 rows deleted: SUCCESS",
        "2 rows deleted: FAILURE",
        "",  # wiped
        "",
    ]


def test_nothing_of_it_elsewhere() -> None:
    err = io.StringIO()
    run("jobs_prune", err=err)
    assert err.getvalue() == ""
