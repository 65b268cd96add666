"""A long loop through a deploy, and through the death of its process."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from jobs import broker
from jobs.broker.base import About
from jobs.models import TaskResult
from tests.models import Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import walk
from tests.workers import Gate, on_redis, ready_worker, settled

ONE = ("--processes", "1")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def walked() -> dict[str, int]:
    return dict(Counter(Run.objects.values_list("label", flat=True)))


def done(task_id: str) -> int:
    """How many steps the broker knows of."""
    found = broker.get().noted("default", task_id, About.POSITION)
    return int(json.loads(found)["loops"][0][1]) if found else 0


def test_told_to_stop_it_goes_on_elsewhere_and_repeats_nothing(
    project: Project, gate: Gate
) -> None:
    worker = ready_worker(project, "--processes", "2")
    result = walk.delay(20, gate.path, 7)
    gate.wait_for()
    (child,) = gate.processes()
    # As the supervisor does at a stop and at a reload; here it is sure to be there before the gate
    # opens.
    os.kill(child, signal.SIGTERM)
    gate.open()
    # The other one has it at once, and must find the position there.
    assert result.get(timeout=60) == "there"
    assert walked() == {str(n): 1 for n in range(20)}
    row = TaskResult.objects.get()
    assert row.attempts == 1
    assert f"{row.worker} stopping" not in worker.output()
    settled()
    assert worker.stop() == 0


def test_a_worker_stops_in_the_middle_of_a_loop(project: Project, gate: Gate) -> None:
    first = ready_worker(project, *ONE)
    result = walk.delay(100_000, gate.path, 1)
    gate.wait_for()
    gate.open()
    assert first.stop(timeout=25) == 0
    assert on_redis() == (1, 0)
    assert not TaskResult.objects.exists()
    assert result.progress is not None
    assert max(walked().values()) == 1


def test_killed_it_repeats_what_came_after_the_last_note(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, *ONE)
    result = walk.delay(20, gate.path, 7)
    gate.wait_for()
    wait_for(lambda: done(result.id) == 7, what="the position to be noted")
    (child,) = gate.processes()
    os.kill(child, signal.SIGKILL)
    gate.wait_for(2)
    gate.open()
    assert result.get(timeout=60) == "there"
    settled()
    assert walked() == {str(n): 1 + (n == 7) for n in range(20)}
    wait_for(lambda: done(result.id) == 0, what="the position to be forgotten")
    assert worker.stop() == 0
