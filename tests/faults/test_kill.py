"""kill -9 of a child, and of the whole worker: nothing is lost, each task is recorded once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from jobs import broker, chain
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import hold_interpreter, kill_child, trace, wait_at
from tests.workers import (
    Gate,
    alive,
    children,
    kill_one_child,
    on_redis,
    ready_worker,
    settled,
)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def every_one_ran(labels: list[str]) -> None:
    """Each has its one SUCCESS, and a trace at least."""
    rows = TaskResult.objects.filter(task="tests.tasks.trace")
    assert rows.count() == rows.filter(state=State.SUCCESS).count() == len(labels)
    assert set(Run.objects.values_list("label", flat=True)) == set(labels)


def test_a_child_is_killed_in_the_middle_of_a_thousand(project: Project) -> None:
    worker = ready_worker(project, "--processes", "2")
    labels = [str(n) for n in range(1000)]
    trace.enqueue_many([(label,) for label in labels])
    killed = []
    for share in (100, 400, 700):
        wait_for(lambda share=share: Run.objects.count() >= share, what=f"{share} runs")
        killed.append(kill_one_child(worker))
    settled()
    every_one_ran(labels)
    # What ran twice is at most what was in hand and not yet recorded at the kills.
    assert Run.objects.count() <= 1000 + 3 * 500
    wait_for(lambda: worker.output().count("killed by SIGKILL") == 3, what="all of them")
    wait_for(lambda: len(children(worker)) == 2, what="the new child")
    assert not set(killed) & set(children(worker))
    assert worker.stop() == 0


def test_a_killed_childs_work_is_back_within_a_second(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, "--processes", "2", jobs={"LEASE_SECONDS": 600.0})
    result = wait_at.delay(gate.path)
    gate.wait_for()
    before = set(children(worker))
    (holder,) = gate.processes()
    os.kill(holder, signal.SIGKILL)
    # The other child has it, long before a lease ends. How soon is measured by the storm.
    gate.wait_for(2)
    gate.open()
    assert result.get(timeout=60) in before - {holder}
    settled()


def test_a_task_that_kills_its_child_is_tried_again(project: Project, tmp_path: Path) -> None:
    worker = ready_worker(project, "--processes", "1")
    result = kill_child.delay(str(tmp_path / "once"))
    assert result.get(timeout=60) == "alive"
    worker.wait_for_output("killed by SIGKILL")


def test_the_supervisor_is_killed(project: Project, gate: Gate) -> None:
    short_lease = {"LEASE_SECONDS": 1.0}
    labels = [str(n) for n in range(300)]
    first = ready_worker(project, "--processes", "2", jobs=short_lease)
    held = [wait_at.delay(gate.path) for _ in range(2)]
    gate.wait_for(2)
    pids = children(first)
    trace.enqueue_many([(label,) for label in labels])
    first.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids), what="the children to end")
    assert on_redis()[1] >= 2
    gate.open()
    second = ready_worker(project, "--processes", "2", jobs=short_lease)
    for result in held:
        assert result.get(timeout=60)
    settled()
    every_one_ran(labels)
    assert "the lease of" in second.output()
    assert second.stop() == 0
    assert broker.get().consumers("default") == []


def test_a_task_that_blocks_its_process_keeps_its_message(project: Project) -> None:
    """The lease is the supervisor's affair: it is renewed though no thread of the child can run."""
    # Long enough for a supervisor that a busy machine holds up for seconds.
    worker = ready_worker(project, "--processes", "2", jobs={"LEASE_SECONDS": 3.0})
    result = hold_interpreter.delay(4.5)
    assert result.get(timeout=60) >= 4.5
    settled()
    assert TaskResult.objects.get().attempts == 1
    assert "the lease of" not in worker.output()


def test_chains_go_on_through_kills(project: Project) -> None:
    """What follows a call is recorded with its end: it is neither lost nor sent twice."""
    worker = ready_worker(project, "--processes", "2")
    steps = [trace.si(f"step {n}") for n in range(3)]
    last = [chain(*steps).delay() for _ in range(100)]
    for share in (60, 180):
        wait_for(lambda share=share: Run.objects.count() >= share, what=f"{share} runs")
        kill_one_child(worker)
    for result in last:
        result.get(timeout=60)
    settled()
    rows = TaskResult.objects.filter(task=trace.name)
    assert rows.count() == rows.filter(state=State.SUCCESS).count() == 300
    assert {Run.objects.filter(label=f"step {n}").count() >= 100 for n in range(3)} == {True}
    assert worker.stop() == 0


MANY = ["default", *(f"many-{n}" for n in range(60))]


@pytest.fixture
def many_queues(settings: Settings) -> dict[str, Any]:
    jobs: dict[str, Any] = {"QUEUES": {name: {} for name in ("high", "low", *MANY)}}
    settings.JOBS = {**settings.JOBS, **jobs}
    return jobs


def test_a_killed_childs_work_is_back_on_any_of_many_queues(
    project: Project, gate: Gate, many_queues: dict[str, Any]
) -> None:
    args = ("--queues", ",".join(MANY), "--processes", "2")
    worker = ready_worker(project, *args, jobs={**many_queues, "LEASE_SECONDS": 600.0})
    result = wait_at.apply_async((gate.path,), queue=MANY[-1])
    gate.wait_for()
    before = set(children(worker))
    (holder,) = gate.processes()
    os.kill(holder, signal.SIGKILL)
    gate.wait_for(2)
    gate.open()
    assert result.get(timeout=60) in before - {holder}
    settled()


def test_a_lost_workers_work_is_back_on_any_of_many_queues(
    project: Project, gate: Gate, many_queues: dict[str, Any]
) -> None:
    """Its lease begins with the claim, and is renewed for as long as it holds the message."""
    short_lease = {**many_queues, "LEASE_SECONDS": 1.0}
    args = ("--queues", ",".join(MANY), "--processes", "1")
    first = ready_worker(project, *args, jobs=short_lease)
    second = ready_worker(project, *args, jobs=short_lease)
    result = wait_at.apply_async((gate.path,), queue=MANY[-1])
    gate.wait_for()
    (pid,) = gate.processes()
    owner, other = (first, second) if pid in children(first) else (second, first)
    with project.valkey.client() as client:
        for _ in range(6):  # twice as long as the lease that the claim gave
            ((_, end),) = client.zrange(f"{{{MANY[-1]}}}:consumers", 0, -1, withscores=True)
            wait_for(
                lambda end=end: client.zcount(f"{{{MANY[-1]}}}:consumers", f"({end}", "+inf"),
                what="the lease to be renewed",
            )
    assert gate.arrived() == 1
    owner.kill_group()
    gate.wait_for(2)
    gate.open()
    assert result.get(timeout=60) in children(other)
    settled()
    assert "the lease of" in other.output()
