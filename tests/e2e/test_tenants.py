"""Tenants of one queue take turns, with a real worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import trace_for, wait_at
from tests.workers import Gate, ready_worker

pytestmark = pytest.mark.one_database


def test_one_customer_s_many_calls_do_not_hold_up_another_s(
    project: Project, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    ready_worker(project, "--processes", "1")
    wait_at.delay(gate.path)
    gate.wait_for()  # nothing else is claimed until it has ended
    trace_for.enqueue_many((f"big {n}", "big") for n in range(400))
    trace_for.enqueue_many((f"small {n}", "small") for n in range(5))
    gate.open()
    wait_for(lambda: Run.objects.count() == 405, what="all calls to run")
    labels = list(Run.objects.order_by("pk").values_list("label", flat=True))
    assert max(n for n, label in enumerate(labels) if label.startswith("small")) < 20
    assert [label for label in labels if label.startswith("small")] == [
        f"small {n}" for n in range(5)
    ]
