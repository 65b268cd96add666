"""What the settings declare is sent by a real beat and run by a real worker."""

from __future__ import annotations

from pathlib import Path

from jobs.models import Schedule
from tests.models import Run
from tests.project import Project

SETTINGS = """
from tests.settings import *

JOBS = {
    **JOBS,
    "BEAT_SCHEDULE": {
        "declared": {"task": "tests.tasks.trace", "schedule": 1, "args": ["from the settings"]},
    },
}
"""


def test_declared_sent_and_run(project: Project, tmp_path: Path) -> None:
    (tmp_path / "declaring_settings.py").write_text(SETTINGS)
    env = {"DJANGO_SETTINGS_MODULE": "declaring_settings", "PYTHONPATH": str(tmp_path)}
    project.manage("runworker", "--processes", "1", **env)
    beat = project.manage("runbeat", **env)
    project.wait_for(
        lambda: Run.objects.filter(label="from the settings").exists(), what="the declared run"
    )
    assert beat.stop() == 0
    assert Schedule.objects.get(name="declared").enabled
