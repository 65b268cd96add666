"""The real `celery inspect`, `celery control`, `celery status` and Flower, with our worker."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import control
from jobs.models import TaskResult
from jobs.states import State
from tests.project import Project
from tests.services import free_port, missing, wait_for
from tests.starter import ROOT
from tests.tasks import add, fail, wait_at
from tests.workers import Gate, ready_worker

pytestmark = pytest.mark.django_db(transaction=True)

#: Celery's interpreter, which `make` installs beside ours.
PYTHON = Path(os.environ.get("CELERY_PYTHON") or Path(sys.prefix) / "celery" / "bin" / "python")

ALL = {"CELERY_CONTROL": "all", "CELERY_EVENTS": True, "POLL_SECONDS": 0.2}
HOSTNAME = "celery@w"


class CommandLine:
    """`celery -A proj`, for many commands."""

    def __init__(self, project: Project, url: str = "", service: str = "") -> None:
        """``url``: of the broker, if it isn't the project's. ``service``: that Sentinels know."""
        if not PYTHON.exists():
            missing("Celery's own environment is not installed (`make` installs it)")
        self._process = subprocess.Popen(
            [
                *(PYTHON, ROOT / "tests" / "celery_side" / "commands.py"),
                *(url or project.redis_url, service),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=project.folder,
            env={"PATH": os.environ["PATH"]},
        )

    def run(self, *args: str) -> tuple[int, str]:
        """The exit status and what was printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(args) + "\n")
        self._process.stdin.flush()
        status, said = json.loads(self._process.stdout.readline())
        return status, said

    def ask(self, kind: str, *args: str) -> Any:
        """What our worker answers to `celery inspect` or `celery control`."""
        status, said = self.run(kind, "-j", "-t", "20", "-d", HOSTNAME, *args)
        assert status == 0, said
        answers = json.loads(said)
        (one,) = answers if isinstance(answers, list) else [answers]
        return one[HOSTNAME]

    def answers(self, kind: str, *args: str) -> bool:
        """Whether our worker answers now."""
        return self.run(kind, "-j", "-t", "5", "-d", HOSTNAME, *args)[0] == 0

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def celery(project: Project) -> Iterator[CommandLine]:
    started = CommandLine(project)
    yield started
    started.close()


def start(project: Project, **jobs: Any) -> Any:
    arguments = ("--name", "w", "--processes", "1", "--queues", "default")
    return ready_worker(project, *arguments, jobs={**ALL, **jobs})


def test_celery_inspects_and_controls_our_worker(
    project: Project, celery: CommandLine, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    worker = start(project)
    status, said = celery.run("status", "-t", "20", "-d", HOSTNAME)
    assert status == 0, said
    assert f"{HOSTNAME}: OK" in said.replace("  ", " ")
    assert celery.ask("inspect", "ping") == {"ok": "pong"}

    eta = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    later = add.apply_async((1, 2), eta=eta)
    running = wait_at.s(gate.path).stamp(customer="acme").delay()
    gate.wait_for()
    (one,) = celery.ask("inspect", "active")
    assert (one["id"], one["name"], one["args"]) == (running.id, wait_at.name, [gate.path])
    assert one["hostname"] == HOSTNAME
    assert one["worker_pid"] == gate.processes()[0]
    assert abs(one["time_start"] - time.time()) < 600
    (two,) = celery.ask("inspect", "scheduled")
    assert (two["request"]["id"], two["eta"]) == (later.id, eta.isoformat())
    found = celery.ask("inspect", "query_task", running.id, later.id, "unknown")
    assert {name: state for name, (state, _) in found.items()} == {
        running.id: "active",
        later.id: "scheduled",
    }
    assert celery.ask("inspect", "reserved") == []
    assert add.name in celery.ask("inspect", "registered")
    (queue,) = celery.ask("inspect", "active_queues")
    assert (queue["name"], queue["routing_key"]) == ("default", "default")
    # All that kombu says of an exchange.
    assert queue["exchange"].items() >= {"name": "default", "passive": False}.items()
    assert {"arguments", "no_declare", "delivery_mode"} < queue["exchange"].keys()
    stats = celery.ask("inspect", "stats")
    assert stats["pid"] == worker.pid
    assert stats["pool"]["processes"] == gate.processes()
    assert celery.ask("inspect", "clock")["clock"] > 0
    assert "django:" in celery.ask("inspect", "report")["ok"]
    settings = celery.ask("inspect", "conf")
    assert settings["CELERY_CONTROL"] == "all"
    assert "BROKER_URL" not in settings
    assert celery.ask("control", "own_command_of_tests", "4") == {"ok": f"{HOSTNAME} 4"}

    assert "flagged as revoked" in celery.ask("control", "revoke", later.id)["ok"]
    assert later.id in celery.ask("inspect", "revoked")
    assert "ok" in celery.ask("control", "rate_limit", add.name, "7/m")
    assert control.rate_limits()[add.name].rate == "7/m"
    assert f"{add.name} [rate_limit=7/m]" in celery.ask("inspect", "registered")
    shown = celery.ask("inspect", "registered", "acks_late", "delay", "rate_limit", "max_retries")
    assert f"{add.name} [acks_late=True rate_limit=7/m max_retries=3]" in shown
    assert celery.ask("control", "rate_limit", "no.such", "7/m") == {"error": "unknown task"}
    assert "Invalid" in celery.ask("control", "rate_limit", add.name, "often")["error"]
    assert celery.ask("control", "add_consumer", "low") == {"ok": "add consumer low"}
    found = celery.ask("inspect", "active_queues")
    assert [one["name"] for one in found] == ["default", "low"]
    assert "not declared" in celery.ask("control", "add_consumer", "other")["error"]
    assert "no longer" in celery.ask("control", "cancel_consumer", "low")["ok"]
    assert celery.ask("control", "pool_grow") == {"ok": "pool will grow"}
    wait_for(lambda: len(celery.ask("inspect", "stats")["pool"]["processes"]) == 2)
    assert celery.ask("control", "pool_shrink", "1") == {"ok": "pool will shrink"}
    wait_for(lambda: celery.ask("inspect", "stats")["pool"]["processes"] == gate.processes())
    assert "from 1 to 10" in celery.ask("control", "pool_shrink")["error"]
    assert celery.ask("control", "time_limit", add.name, "1", "2") == {
        "ok": "time limits set successfully"
    }
    assert str(control.time_limits()[add.name]) == "soft 1 s, hard 2 s"
    assert celery.ask("control", "time_limit", "no.such", "1") == {"error": "unknown task"}
    stamped = add.s(1, 2).stamp(customer="acme").delay()
    asked = ("revoke_by_stamped_headers", "customer=acme")
    assert "flagged as revoked" in celery.ask("control", *asked)["ok"]
    control.revoke_by_stamped_headers({"customer": "acme"}, terminate=True)
    for result in (running, stamped):
        wait_for(TaskResult.objects.filter(id=result.id, state=State.REVOKED).exists)
    gate = Gate(tmp_path / "second gate")
    running = wait_at.delay(gate.path)
    gate.wait_for()
    assert "ok" in celery.ask("control", "terminate", "KILL", running.id)
    wait_for(lambda: TaskResult.objects.filter(id=running.id, state=State.REVOKED).exists())
    assert "stops" in celery.ask("control", "shutdown")["ok"]
    assert worker.wait(timeout=60) == 0


def test_flower_shows_our_workers_and_calls(project: Project, tmp_path: Path) -> None:
    if not PYTHON.exists():
        missing("Celery's own environment is not installed (`make` installs it)")
    gate = Gate(tmp_path / "gate")
    worker = start(project, CELERY_CONTROL="inspect")
    port = free_port()
    with (tmp_path / "flower.log").open("wb") as out:
        flower = subprocess.Popen(
            [
                *(PYTHON, "-m", "celery", "-b", project.redis_url, "flower"),
                *(f"--port={port}", "--address=127.0.0.1"),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "FLOWER_UNAUTHENTICATED_API": "true"},
        )

    def page(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=60) as found:
                return json.load(found)
        except (urllib.error.URLError, ConnectionError):
            return None  # it is still starting

    def listens() -> bool:
        with project.valkey.client() as client:
            return bool(client.pubsub_numpat())

    try:
        wait_for(listens, what="Flower to listen")
        done, failed = add.delay(20, 22), fail.delay("no")
        running = wait_at.delay(gate.path)
        gate.wait_for()

        def states() -> dict[str, str]:
            return {task: one["state"] for task, one in (page("tasks") or {}).items()}

        wanted = {done.id: "SUCCESS", failed.id: "FAILURE", running.id: "STARTED"}
        wait_for(lambda: states() == wanted, what=f"{wanted} in Flower")
        (shown,) = [one for task, one in page("tasks").items() if task == done.id]
        assert (shown["name"], shown["args"], shown["result"]) == (add.name, "[20, 22]", "42")
        assert shown["worker"] == HOSTNAME
        gate.open()
        wait_for(lambda: states()[running.id] == "SUCCESS", what="the end in Flower")
        found = page("workers?refresh=1")[HOSTNAME]
        assert add.name in found["registered"]
        assert found["stats"]["pid"] == worker.pid
        assert page("workers?status=1") == {HOSTNAME: True}
        assert worker.stop() == 0
        wait_for(
            lambda: page("workers?status=1") == {HOSTNAME: False}, what="the end of the worker"
        )
    finally:
        flower.kill()
        flower.wait(timeout=60)
