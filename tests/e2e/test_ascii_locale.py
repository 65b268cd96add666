"""A locale without Unicode, as programs that embed Python have it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.project import ROOT, Project
from tests.starter import Starter
from tests.tasks import add, echo

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
#: Every use of the locale's encoding is an error.
STRICT = {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONWARNINGS": "error::EncodingWarning:jobs"}

SETTINGS = """
from tests.settings import *
LANGUAGE_CODE = "zh-hans"
JOBS = {**JOBS, "QUEUES": {**JOBS["QUEUES"], "\\u043f\\u043e\\u0447\\u0442\\u0430": {}}}
"""


@pytest.fixture
def strict(project: Project) -> Iterator[Project]:
    with Starter({**project.env, **ASCII, **STRICT}) as project.starter:
        yield project


def test_workers_and_commands(strict: Project) -> None:
    project = strict
    (project.folder / "in_chinese.py").write_text(SETTINGS, "utf-8")
    path = f"{project.folder}:{ROOT}"
    env = {**ASCII, **STRICT, "DJANGO_SETTINGS_MODULE": "in_chinese", "PYTHONPATH": path}
    worker = project.manage("runworker", "--processes", "1", **env)
    assert add.delay(1, 2).get(timeout=60) == 3
    assert echo.delay("müde").get(timeout=60) == "müde"
    beat = project.manage("runbeat", **env)
    beat.wait_for_output("")
    for command in (
        *("check", "jobs_status", "jobs_status --json", "jobs_inspect workers", "jobs_recover"),
        *("jobs_inspect registered", "jobs_prune", "jobs_dead_letters", "jobs_status --help"),
    ):
        said = project.run(*command.split(), **env)
        assert "Traceback" not in said
    assert "\\u" in project.run("jobs_status", **env)
    assert worker.stop() == 0
    assert beat.stop() == 0


def test_nothing_is_read_in_the_locale_s_encoding(project: Project) -> None:
    code = (
        "import django; django.setup(); import jobs.beat, jobs.worker.supervisor.reload; "
        "from jobs import broker; broker.get()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**project.env, **ASCII, **STRICT},
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_text_file_has_an_encoding() -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--preview", "--select", "PLW1514", "--quiet"]
    done = subprocess.run(
        [*ruff, "--output-format", "concise", str(ROOT / "jobs")],
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert (done.returncode, done.stdout) == (0, "")
