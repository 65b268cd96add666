"""The admin's page of a queue beside a real worker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.test import Client

from jobs.exceptions import TaskRevoked
from tests.integration.admin.conftest import staff
from tests.project import Project
from tests.services import wait_for
from tests.tasks import trace, wait_at
from tests.workers import Gate, ready_worker

PAGE = "/admin/jobs/queues/queue/default/?tab="


def test_a_running_call_is_seen_and_terminated(project: Project, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    ready_worker(project, "--processes", "1")
    running = wait_at.delay(gate.path)
    gate.wait_for()
    root = staff(superuser=True)

    def shown(tab: str) -> list[str]:
        """The keys of the calls on a list."""
        return re.findall(r'name="key" value="([^"]+)"', page(root, tab))

    (key,) = wait_for(lambda: shown("running"), what="the worker's report")
    assert key.endswith(f":{running.id}")
    assert "runworker --queues" not in page(root, "running")  # somebody works on it
    later = trace.apply_async(("later",), countdown=3600)
    (due,) = shown("due")
    root.post(f"{PAGE}running", {"action": "terminate", "key": key, "confirmed": "yes"})
    with pytest.raises(TaskRevoked, match="terminated"):
        running.get(timeout=60)
    root.post(f"{PAGE}due", {"action": "run_now", "key": due, "confirmed": "yes"})
    assert later.get(timeout=60) is None
    assert shown("due") == []
    wait_for(lambda: shown("running") == [], what="the list to be empty")


def page(client: Client, tab: str) -> str:
    return client.get(PAGE + tab).content.decode()
