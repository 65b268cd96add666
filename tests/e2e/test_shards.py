"""A real worker of a queue whose number of shards changes while it works."""

from __future__ import annotations

import os
import signal

import pytest
from pytest_django import Settings

from jobs import broker
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import trace, wait_at
from tests.workers import Gate, ready_worker, settled

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]


def use(settings: Settings, shards: int) -> None:
    queues = {"high": {}, "default": {"shards": shards}, "low": {}}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}


def test_nothing_is_lost_while_the_number_changes(
    project: Project, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    old = {"QUEUES": {"high": {}, "default": {"shards": 2}, "low": {}}, "POLL_SECONDS": 0.2}
    ready_worker(project, "--queues", "default", "--processes", "2", jobs=old)
    gate, sent = Gate(tmp_path_factory.mktemp("gates") / "gate"), []
    for shards in (2, 5, 3, 1):
        use(settings, shards)
        sent += trace.enqueue_many([(f"{shards}/{n}",) for n in range(15)])
        trace.apply_async((f"{shards}/later",), countdown=0.2)
    wait_for(lambda: broker.get().stats("default")[:3] == (0, 0, 0), what="all to be recorded")
    use(settings, 5)
    held = wait_at.delay(gate.path)
    gate.wait_for(1)
    os.kill(gate.processes()[0], signal.SIGKILL)
    gate.wait_for(2)  # from whichever shard, it runs again
    gate.open()
    settled()
    labels = list(Run.objects.values_list("label", flat=True))
    assert len(labels) == len(set(labels)) == 64
    assert {result.state for result in [*sent, held]} == {State.SUCCESS}
    assert set(TaskResult.objects.values_list("queue", "state")) == {("default", State.SUCCESS)}
