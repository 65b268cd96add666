"""``--json`` of the commands whose own tests look at their text."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import broker
from jobs.control.workers import Answer, Command
from jobs.models import TaskResult
from tests.integration.commands.helpers import fail, run
from tests.tasks import add, hundredth, trace
from tests.workers import put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def told(*args: str) -> Any:
    return json.loads(run(args[0], "--json", *args[1:]))


def test_every_command_has_it() -> None:
    """But for those that run until they are stopped."""
    names = [name for name, app in get_commands().items() if app == "jobs"]
    lasting = {"runworker", "runbeat", "rundev"}
    assert lasting < set(names)
    for name in set(names) - lasting:
        help_text = load_command_class("jobs", name).create_parser("manage.py", name).format_help()
        assert "--json" in help_text, name


def test_dead_letters() -> None:
    for _ in range(3):
        put(b"not json")
    work()
    assert told("jobs_dead_letters", "high") == {"letters": [], "more": {"high": 0}}
    found = told("jobs_dead_letters", "default", "--count", "2")
    assert found["more"] == {"default": 1}
    letter, _ = found["letters"]
    assert (letter["queue"], letter["task"], letter["id"]) == ("default", "", "")
    assert dt.datetime.fromisoformat(letter["at"]) <= timezone.now()
    assert letter["reason"]
    assert told("jobs_dead_letters", "--requeue", letter["key"]) == {"requeued": 1}
    assert told("jobs_dead_letters", "--discard", "all", "--yes") == {"discarded": 2}


def test_pauses() -> None:
    nothing = {"paused_queues": {}, "paused_tasks": {}}
    assert told("jobs_pause", "--by", "ada") == nothing
    found = told("jobs_pause", "low", "--task", trace.name, "--by", "ada", "--why", "noon")
    assert found == told("jobs_pause")
    assert (found["paused_queues"]["low"]["by"], list(found["paused_tasks"])) == (
        "ada",
        [trace.name],
    )
    assert told("jobs_resume", "low", "high", "--task", trace.name) == {
        "resumed_queues": {"low": True, "high": False},
        "resumed_tasks": {trace.name: True},
    }


def test_moving_and_purging() -> None:
    sent = [trace.delay(text) for text in "abc"]
    moving = {"queue": "default", "to": "low", "found": 3}
    assert told("jobs_move", "default", "low", "--dry-run") == {**moving, "moved": 0}
    handed = {"queue": "default", "found": 0, "handed_over": 0}
    assert told("jobs_hand_over", "default", "--dry-run") == handed
    assert told("jobs_hand_over", "default") == handed
    assert told("jobs_move", "default", "low") == {**moving, "moved": 3}
    changed = {"id": sent[0].id, "queue": "low", "priority": 0, "changed": True}
    assert told("jobs_priority", "low", sent[0].id, "0") == changed
    purged = {"queue": "low", "found": 3, "deleted": 0}
    assert told("jobs_purge", "low", "--dry-run") == purged
    assert told("jobs_purge", "low", "--yes") == {**purged, "deleted": 3}


def test_a_question_does_not_disturb_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.delay("a")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert told("jobs_purge", "default")["deleted"] == 1
    printed = capsys.readouterr()
    assert (printed.out, "Delete 1 message" in printed.err) == ("", True)


def test_rates() -> None:
    assert told("jobs_rate_limit") == {"rates": {}}
    found = told("jobs_rate_limit", hundredth.name, "10/m", "--by", "ada")
    assert found == told("jobs_rate_limit", hundredth.name)
    (rate,) = found["rates"].values()
    assert (rate["rate"], rate["burst"], rate["by"]) == ("10/m", None, "ada")
    asked = {"task": hundredth.name, "asking_again": 0}
    assert told("jobs_rate_limit", hundredth.name, "--ask-again") == asked
    assert told("jobs_rate_limit", hundredth.name, "--reset") == {"rates": {}}
    assert told("jobs_time_limit") == {"time_limits": {}}


def test_revoking() -> None:
    first, second = add.delay(1, 2), add.delay(3, 4)
    TaskResult.objects.create(id="ended", task="x", queue="default", state="SUCCESS")
    assert told("jobs_revoke", first.id, "ended") == {
        "calls": [
            {"id": first.id, "revoked": True, "ended": None},
            {"id": "ended", "revoked": False, "ended": "SUCCESS"},
        ],
        "stamps": [],
    }
    work()
    assert (first.state, second.state) == ("REVOKED", "SUCCESS")


def test_recovering() -> None:
    with transaction.atomic():
        sent = trace.delay("a")
    TaskResult.objects.update(published_at=timezone.now() - dt.timedelta(minutes=10))
    TaskResult.objects.create(
        id="elsewhere", task="x", queue="gone", published_at=timezone.now() - dt.timedelta(days=1)
    )
    broker.get().claim("default", "one", 1, 1, 60)
    broker.get().ack("default", "one", [1])
    call = {"id": sent.id, "task": trace.name, "queue": "default", "state": "PENDING", "eta": None}
    lost = {"lost": 1, "tasks": {trace.name: 1}, "calls": [call], "undeclared_queues": {"gone": 1}}
    lost |= {"celerys_queues": {}}
    assert told("jobs_recover") == {**lost, "sent_again": 0}
    assert told("jobs_recover", "--apply") == {**lost, "sent_again": 1}


def test_pruning() -> None:
    old = timezone.now() - dt.timedelta(days=400)
    TaskResult.objects.create(
        id="a", task="x", queue="default", state="SUCCESS", created_at=old, finished_at=old
    )
    found = told("jobs_prune", "--dry-run")
    assert (found["found"], found["deleted"], sum(found["rows"].values())) == (1, 0, 1)
    assert told("jobs_prune") == {**found, "deleted": 1}


def test_schedules_of_code(settings: Settings) -> None:
    settings.JOBS = {
        **settings.JOBS,
        "BEAT_SCHEDULE": {
            "mine": {"task": add.name, "schedule": 60, "args": [1, 2]},
            "wrong": {"task": add.name, "schedule": 60, "args": ["1", 2, 3]},
        },
    }
    status, printed, _ = fail("jobs_sync_schedules", "--json", "--dry-run")
    found = json.loads(printed)
    assert (status, found["written"]) == (1, False)
    steps = {step["name"]: (step["act"], step["failed"]) for step in found["schedules"]}
    assert (steps["mine"], steps["wrong"]) == (("created", False), ("refused", True))


def test_a_worker_s_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(act: str, given: Answer) -> Any:
        broker.get().report("default", "w", b"{}")

        def command(queue: str, worker: str, text: bytes, seconds: float) -> None:
            asked = Command.loads(text)
            assert asked
            broker.get().answer(queue, asked.id, given.dumps(), 60)

        with monkeypatch.context() as patch:
            patch.setattr(broker.get(), "command", command)
            return told("jobs_worker", act, "w", "--by", "ada")

    told_all = {"worker": "w", "tasks": None, "stacks": {}}
    assert answer("quiet", Answer(True)) == {**told_all, "act": "quiet"}
    stacks = {"w": "File a"}
    found = answer("stack", Answer(True, "", (("w", "File a"),)))
    assert found == {**told_all, "act": "stack", "stacks": stacks}
    assert answer("tasks", Answer(True, "a\nb"))["tasks"] == ["a", "b"]


def test_the_embedded_broker(settings: Settings, tmp_path: Path) -> None:
    settings.JOBS = {**settings.JOBS, "EMBEDDED_DIR": tmp_path / "nothing"}
    status, printed, _ = fail("runbroker", "--status", "--json")
    assert (status, json.loads(printed)) == (1, {"running": False, "pid": None, "url": None})
