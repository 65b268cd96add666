"""The real Celery as client of our worker: it sends the calls, and its results tell the ends.

The checks are in `tests/celery_side/client.py`, which runs in an environment of Celery's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import Project
from tests.services import missing
from tests.starter import ROOT
from tests.workers import ready_worker

pytestmark = pytest.mark.django_db(transaction=True)

#: Its interpreter, which `make` installs beside ours.
PYTHON = Path(os.environ.get("CELERY_PYTHON") or Path(sys.prefix) / "celery" / "bin" / "python")

#: Celery's clients send to ``foreign``; what follows goes to ``default``, too.
QUEUES: dict[str, dict[str, bool]] = {"high": {}, "default": {}, "low": {}}
OPEN = {"QUEUES": {**QUEUES, "foreign": {"open": True}}, "POLL_SECONDS": 0.05}


@pytest.mark.timeout(600)
def test_clients_of_celery_get_their_results(project: Project) -> None:
    if not PYTHON.exists():
        missing("Celery's own environment is not installed (`make` installs it)")
    ready_worker(project, "--processes", "2", jobs=OPEN)
    client = ROOT / "tests" / "celery_side" / "client.py"
    run = subprocess.run(
        [PYTHON, client, project.redis_url],
        capture_output=True,
        text=True,
        cwd=project.folder,
        env={"PATH": os.environ["PATH"]},
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
