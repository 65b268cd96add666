"""Ordinary and ``async def`` tasks in one child: neither kind waits for a runner of the other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, async_add, async_wait_at, wait_at
from tests.workers import Gate, on_redis, ready_worker


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.mark.parametrize("waiting", [1, 1500])
def test_async_calls_run_behind_ordinary_ones(project: Project, gate: Gate, waiting: int) -> None:
    worker = ready_worker(project, "--processes", "1")
    long = wait_at.delay(gate.path)
    gate.wait_for()
    behind = add.enqueue_many([(n, 0) for n in range(waiting)])
    assert async_add.delay(1, 2).get(timeout=60) == 3
    assert [async_add.delay(n, 2).get(timeout=60) for n in range(3)] == [2, 3, 4]
    assert not any(result.ready() for result in behind[:10])
    gate.open()
    assert long.get(timeout=60)
    assert [result.get(timeout=60) for result in behind] == list(range(waiting))
    assert worker.stop() == 0


def test_ordinary_calls_run_behind_async_ones(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, "--processes", "1", "--concurrency", "2")
    long = [async_wait_at.delay(gate.path) for _ in range(2)]
    gate.wait_for(2)
    behind = [async_add.delay(n, 0) for n in range(5)]
    assert add.delay(1, 2).get(timeout=60) == 3
    assert not any(result.ready() for result in behind)
    gate.open()
    for result in [*long, *behind]:
        result.get(timeout=60)
    assert worker.stop() == 0


def test_looking_for_the_other_kind_pauses(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, "--processes", "1")
    long = wait_at.delay(gate.path)
    gate.wait_for()
    behind = add.enqueue_many([(n, 0) for n in range(20)])

    def scripts() -> int:
        with project.valkey.client() as client:
            return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    def in_a_second() -> float:
        before, began = scripts(), time.monotonic()
        time.sleep(1)
        return (scripts() - before) / (time.monotonic() - began)

    # Two or three for each look, of which there are two a second once they have slowed down.
    wait_for(lambda: in_a_second() < 20, what="the looks to slow down")
    gate.open()
    assert long.get(timeout=60)
    assert [result.get(timeout=60) for result in behind] == list(range(20))
    wait_for(lambda: on_redis() == (0, 0), what="nothing to be left")
    assert worker.stop() == 0
