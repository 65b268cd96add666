"""Operators and real workers: pauses that outlive them, and what they say of themselves."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from django.utils import timezone

from jobs import control
from jobs.control import inspect
from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, async_wait_at, trace, wait_at
from tests.workers import Gate, on_redis, ready_worker, settled

#: What isn't told by the bell would be noticed only after this.
SLOW = {"POLL_SECONDS": 300.0}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.mark.parametrize("queues", ["default", "high,default"])
def test_a_pause_outlives_the_worker_and_ends_at_once(
    project: Project, gate: Gate, queues: str
) -> None:
    args = ("--processes", "1", "--queues", queues)
    worker = ready_worker(project, *args, jobs=SLOW)
    running = wait_at.delay(gate.path)
    gate.wait_for()
    control.pause("default", by="ada", why="the shop moves")
    waiting = [add.delay(n, n) for n in range(3)]
    gate.open()
    # What runs already ends as usual.
    assert running.get(timeout=60)
    wait_for(lambda: on_redis() == (3, 0))
    assert worker.stop() == 0
    worker = ready_worker(project, *args, jobs=SLOW)
    # It claims: what is on another queue runs, what is paused doesn't.
    if queues != "default":
        assert add.apply_async((1, 1), queue="high").get(timeout=60) == 2
    assert on_redis() == (3, 0)
    control.resume("default")
    assert [result.get(timeout=60) for result in waiting] == [0, 2, 4]


def test_a_paused_task_comes_back_at_once(project: Project) -> None:
    ready_worker(project, "--processes", "1", jobs=SLOW)
    control.pause_task(trace.name)
    paused = trace.delay("a")
    assert add.delay(1, 2).get(timeout=60) == 3
    wait_for(lambda: [call.parked for call in inspect.due("default")] == [True])
    settled()
    control.resume_task(trace.name)
    paused.get(timeout=60)


def test_what_workers_say_of_themselves(project: Project, gate: Gate) -> None:
    args = ("--processes", "2", "--queues", "low,default", "--name", "w1")
    worker = ready_worker(project, *args, jobs={"POLL_SECONDS": 0.2})
    assert [add.delay(n, n).get(timeout=60) for n in range(3)]
    sent = {wait_at.delay(gate.path).id, async_wait_at.apply_async((gate.path,), queue="low").id}
    gate.wait_for(2)
    wait_for(lambda: {running.call.id for running in inspect.active()} == sent)
    wait_for(lambda: [told.processed for told in inspect.workers()] == [3])
    (told,) = inspect.workers()
    assert (told.name, told.host, told.pid) == ("w1", socket.gethostname(), worker.pid)
    assert (told.queues, told.processes) == (["low", "default"], 2)
    assert {running.call.queue for running in told.current} == {"low", "default"}
    for running in told.current:
        assert running.consumer.startswith("w1/")
        assert told.started < running.since < timezone.now()
        assert str(os.fspath(gate.path)) in running.call.args
    printed = project.run("jobs_inspect", "active")
    assert all(task_id in printed for task_id in sent)
    gate.open()
    wait_for(lambda: inspect.active() == [])
    assert worker.stop() == 0
    assert inspect.workers() == []
