"""The numbers of real worker processes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.models import TaskResult
from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, fail
from tests.workers import ready_worker


def hour(project: Project) -> Any:
    return json.loads(project.run("jobs_status", "--json"))["metrics"]["hour"]


@pytest.mark.parametrize("signal", ["stop", "kill"])
def test_a_worker_s_numbers_in_jobs_status(project: Project, signal: str) -> None:
    worker = ready_worker(project, "--processes", "2")
    for n in range(30):
        add.delay(n, n)
    for n in range(4):
        fail.apply_async((str(n),), queue="low")
    wait_for(lambda: TaskResult.objects.exclude(finished_at=None).count() == 34, 60)
    if signal == "stop":
        # It sends at its end what is not sent yet.
        assert worker.stop() == 0
    else:
        # About once a second it sends while it works.
        wait_for(lambda: hour(project)["tasks"].get(add.name, {}).get("succeeded") == 30, 60)
        wait_for(lambda: hour(project)["tasks"].get(fail.name, {}).get("failed") == 4, 60)
        worker.kill_group()
    found = hour(project)
    assert (found["total"]["sent"], found["total"]["succeeded"]) == (34, 30)
    assert found["queues"]["low"]["failed"] == 4
    assert found["queues"]["default"]["failed"] == 0
    assert found["tasks"][add.name]["succeeded"] == 30
    for name in ("wait", "run"):
        one = found["total"][name]
        assert 0 < one["p50"] <= one["p95"] <= one["p99"] < 60
