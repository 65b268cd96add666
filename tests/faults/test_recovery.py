"""Redis loses messages while workers run: all committed calls run all the same, by themselves."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import transaction

from jobs import broker, control
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.project import Project
from tests.services import Valkey, wait_for
from tests.tasks import trace, wait_at
from tests.workers import Gate, on_redis, ready_worker, settled

#: A short lease: workers look for losses more often.
SOON = {"LEASE_SECONDS": 4}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def empty(server: Valkey) -> None:
    with server.client() as client:
        client.flushall()


def crash_and_come_back_empty(server: Valkey) -> None:
    server.kill()
    server.start(appendonly="no")


@pytest.mark.parametrize("lose", [empty, crash_and_come_back_empty])
def test_everything_is_lost(project: Project, gate: Gate, lose: Callable[[Valkey], None]) -> None:
    workers = [ready_worker(project, "--processes", "2", jobs=SOON) for _ in range(2)]
    with transaction.atomic():
        held = wait_at.delay(gate.path)
    gate.wait_for()
    # The processes may have claimed all of the others when everything is lost.
    control.pause("low", by="ada")
    labels = {str(n) for n in range(2000)}
    with transaction.atomic():
        trace.enqueue_many([(str(n),) for n in range(1900)])
        trace.enqueue_many([(str(n),) for n in range(1900, 2000)], queue="low")
    wait_for(lambda: Run.objects.count() >= 100, what="100 runs")
    lose(project.valkey)
    wait_for(lambda: on_redis_or_away()[1] >= 1, what="the running call to be in flight again")
    wait_for(lambda: ended() == 2000, what="all to have run")
    assert set(Run.objects.values_list("label", flat=True)) == labels
    assert gate.arrived() == 1  # what ran was not sent again
    gate.open()
    assert held.get(timeout=60)
    settled()
    wait_for(lambda: not broker.get().doubtful(["default"]), what="the end of the comparison")
    for worker in workers:
        assert "Traceback" not in worker.output()
        assert worker.stop() == 0
    sent_again = [
        int(calls)
        for worker in workers
        for calls in re.findall(r"(\d+) committed calls .* are sent again", worker.output())
    ]
    assert 100 <= sum(sent_again) <= 2000


def ended() -> int:
    return TaskResult.objects.filter(task="tests.tasks.trace", state=State.SUCCESS).count()


def on_redis_or_away() -> tuple[int, int]:
    try:
        return on_redis()
    except ConnectionError:
        return (0, 0)


def test_a_process_that_dies_after_the_loss_loses_nothing(project: Project, gate: Gate) -> None:
    """Not even a call that only Redis knew."""
    worker = ready_worker(project, "--processes", "1", jobs=SOON)
    held = wait_at.delay(gate.path)
    gate.wait_for()
    empty(project.valkey)
    wait_for(lambda: on_redis() == (0, 1), what="the running call to be in flight again")
    os.kill(gate.processes()[0], signal.SIGKILL)
    gate.wait_for(2)
    gate.open()
    assert held.get(timeout=60)
    assert worker.stop() == 0


def test_the_last_moment_before_a_failover_is_lost(project: Project) -> None:
    worker = ready_worker(project, "--processes", "1", jobs=SOON)
    wait_for(lambda: not broker.get().doubtful(["default"]), what="the first comparison")
    control.pause("default", by="ada")
    labels = [str(n) for n in range(60)]
    with transaction.atomic():
        trace.enqueue_many([(label,) for label in labels])
    with project.valkey.client() as client:
        client.ltrim("default", 0, 39)
        client.replicaof("127.0.0.1", "1")
        client.replicaof("NO", "ONE")
    worker.wait_for_output("20 committed calls of the queues")
    assert on_redis() == (60, 0)
    control.resume("default")
    settled()
    assert sorted(Run.objects.values_list("label", flat=True)) == sorted(labels)
    assert worker.stop() == 0


def test_a_restart_that_loses_nothing_sends_nothing_again(project: Project) -> None:
    worker = ready_worker(project, "--processes", "1", jobs=SOON)
    wait_for(lambda: not broker.get().doubtful(["default"]), what="the first comparison")
    control.pause("default", by="ada")
    with transaction.atomic():
        trace.enqueue_many([(str(n),) for n in range(20)])
        trace.apply_async(("later",), countdown=3600)
    project.valkey.restart()
    assert broker.get().doubtful(["default"]) == ["default"]
    wait_for(lambda: not broker.get().doubtful(["default"]), what="the comparison")
    assert broker.get().stats("default")[:3] == (20, 0, 1)
    assert "sent again" not in worker.output()
    assert worker.stop() == 0


def test_it_can_be_turned_off(project: Project) -> None:
    worker = ready_worker(project, "--processes", "1", jobs={**SOON, "RECOVER": False})
    assert trace.delay("a").get(timeout=60) is None
    assert broker.get().doubtful(["default"]) == ["default"]
    assert worker.stop() == 0
    assert broker.get().doubtful(["default"]) == ["default"]
