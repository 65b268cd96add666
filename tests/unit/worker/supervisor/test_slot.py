"""A child that can't be started."""

from __future__ import annotations

import subprocess
import time

import pytest

from jobs.worker.child import Options
from jobs.worker.supervisor.slot import Slot
from jobs.worker.supervisor.starting import Starter


def test_a_machine_that_lacks_the_means_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no process left")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    slot = Slot(1, Options(queues=("default",), name="here"), Starter())
    pauses = []
    for _ in range(1100):
        slot.start()
        pauses.append(slot.start_at - 1000.0)
    assert pauses[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert pauses[-1] == 30
    assert slot.failed == "no process left"
