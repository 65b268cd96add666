"""A worker of hundreds of queues: it asks those that have something, and sleeps cheaply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from pytest_django import Settings

from jobs import broker, control
from jobs.control import inspecting, snapshot
from tests.models import Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import trace, wait_at
from tests.workers import Gate, ready_worker, settled, start_worker

pytestmark = pytest.mark.one_database

MANY = ["default", *(f"many-{n}" for n in range(300))]
JOBS: dict[str, Any] = {
    "QUEUES": {name: {} for name in ("high", "low", *MANY)},
    "LEASE_SECONDS": 3.0,
}
ARGS = ("--queues", ",".join(MANY), "--processes", "2")


@pytest.fixture(autouse=True)
def many(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, **JOBS}


@pytest.fixture
def client(project: Project) -> redis.Redis:
    return project.valkey.client()


class Renewals:
    """Counts what the server does from one renewal of a worker's leases to a later one."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._own = 0

    def _at(self) -> float:
        self._own += 1
        found = self._client.zrange("{default}:reported", 0, -1, withscores=True)
        return max((at for _, at in found), default=0.0)

    def wait(self, count: int) -> None:
        for _ in range(count):
            before = self._at()
            wait_for(lambda before=before: self._at() > before, what="the next renewal")

    def commands(self, count: int) -> int:
        self.wait(1)
        self._own = 0
        before = self._client.info("stats")["total_commands_processed"]
        self.wait(count)
        after = self._client.info("stats")["total_commands_processed"]
        return int(after - before) - self._own - 1


def test_it_costs_next_to_nothing_while_it_is_idle(project: Project, client: redis.Redis) -> None:
    """In three renewals of its leases it sends fewer commands than it has queues, once it has
    compared them with the ledger."""
    ready_worker(project, *ARGS, jobs={**JOBS, "POLL_SECONDS": 1.0})
    compared = [f"{{{queue}}}:compared" for queue in MANY]
    wait_for(
        lambda: all((one or b"").startswith(b"=") for one in client.mget(compared)),
        what="all queues to be compared",
    )
    renewals = Renewals(client)
    renewals.wait(1)
    assert renewals.commands(3) < len(MANY)


def test_each_queue_is_heard(project: Project) -> None:
    ready_worker(project, *ARGS, jobs={**JOBS, "POLL_SECONDS": 600.0})
    for queue in (MANY[-1], MANY[150], MANY[1]):
        result = trace.apply_async((queue,), queue=queue)
        result.get(timeout=60)
        later = trace.apply_async((queue,), queue=queue, countdown=0.3)
        later.get(timeout=60)
    settled()


def test_what_comes_without_a_bell_is_found(project: Project, client: redis.Redis) -> None:
    """As a message whose bell was lost: `POLL_SECONDS` later at most."""
    ready_worker(project, *ARGS, jobs={**JOBS, "POLL_SECONDS": 0.5})
    sent = trace.apply_async(("a",), queue=MANY[-1])
    sent.get(timeout=60)
    paused = MANY[-1]
    control.pause(paused)
    result = trace.apply_async(("b",), queue=paused)
    wait_for(lambda: not client.exists(f"{{{paused}}}:bell"), what="the pause to be seen")
    client.hdel(f"{{{paused}}}:paused", "")  # `resume` would ring
    result.get(timeout=60)


def test_the_first_queue_comes_first_also_when_it_was_empty(
    project: Project, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    ready_worker(
        project, "--queues", ARGS[1], "--processes", "1", jobs={**JOBS, "POLL_SECONDS": 600.0}
    )
    held = wait_at.apply_async((gate.path,), queue=MANY[5])
    gate.wait_for()
    for queue in (MANY[0], MANY[7], MANY[9]):
        trace.enqueue_many([(queue,)] * 2, queue=queue)
    gate.open()
    held.get(timeout=60)
    wait_for(lambda: Run.objects.count() == 6, what="all of them")
    runs = list(Run.objects.order_by("pk").values_list("label", flat=True))
    assert runs == [MANY[0]] * 2 + [MANY[7]] * 2 + [MANY[9]] * 2


def test_operators_see_its_processes_on_every_queue(project: Project) -> None:
    worker = start_worker(project, *ARGS, jobs=JOBS)
    worker.wait_for_output(" is ready")

    def seen(queue: str) -> int:
        found = {one.name: one for one in snapshot.latest(now=True).queues}
        return found[queue].stats.consumers

    wait_for(lambda: seen(MANY[-1]) == 2, what="both on the last queue")
    assert seen(MANY[0]) == 2
    assert inspecting.stats(MANY[-1], inspecting.claimers()).consumers == 2
    assert len(inspecting.consumers(MANY[-1], inspecting.claimers())) == 2
    assert broker.get().consumers(MANY[-1]) == []
    assert worker.stop() == 0
    assert broker.get().attended(MANY[1:]) == []
    assert broker.get().consumers(MANY[0]) == []
