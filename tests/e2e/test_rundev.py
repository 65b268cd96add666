"""`manage.py rundev`: worker and beat together, started again when code changes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.models import TaskResult
from tests.project import Process, Project
from tests.services import wait_for
from tests.workers import put_message

CODE = "from jobs import task\n\n@task(name='answer')\ndef answer():\n    return {!r}\n"


@pytest.fixture
def write(project: Project) -> Callable[[str], None]:
    """Writes the tasks of an app, at one blow: an empty file is code as well."""
    app = project.folder / "code" / "dev_app"
    app.mkdir(parents=True)
    (app / "__init__.py").touch()
    (project.folder / "code" / "dev_settings.py").write_text(
        "from pathlib import Path\n"
        "from tests.settings import *\n"
        "BASE_DIR = Path(__file__).parent\n"
        "INSTALLED_APPS = [*INSTALLED_APPS, 'dev_app']\n"
    )

    def write(text: str) -> None:
        (app / "new").write_text(text)
        (app / "new").replace(app / "tasks.py")

    return write


def rundev(project: Project, *args: str, settings: str = "dev_settings") -> Process:
    path = [str(project.folder / "code"), project.env["PYTHONPATH"]]
    return project.manage(
        *("rundev", "--processes", "1", *args),
        DJANGO_SETTINGS_MODULE=settings,
        PYTHONPATH=os.pathsep.join(path),
        # Two changes within a second must not use the bytecode of the first.
        PYTHONDONTWRITEBYTECODE="1",
    )


def answer_is(expected: str) -> None:
    task_id = put_message(task="answer")
    rows = TaskResult.objects.filter(id=task_id, state="SUCCESS")
    wait_for(rows.exists, what=f"the answer {expected}")
    assert rows.get().result == f'"{expected}"'


@pytest.mark.one_database
def test_both_run_the_new_code_after_each_change(
    project: Project, write: Callable[[str], None]
) -> None:
    write(CODE.format("old"))
    process = rundev(project, "--queues", "default")
    process.wait_for_output(" ready, queues: default")
    process.wait_for_output("beat   | Beat is running")
    answer_is("old")
    # What can't be imported ends both, and the next change starts them again.
    write("not code")
    process.wait_for_output("dev_app/tasks.py has changed: worker and beat are started again.")
    process.wait_for_output("worker ended by itself (exit status 1); a change starts it again.")
    process.wait_for_output("beat ended by itself")
    write(CODE.format("new"))
    wait_for(lambda: process.output().count("Beat is running") == 2, what="the second beat")
    answer_is("new")
    printed = process.output()
    pids = set(map(int, re.findall(r"worker-(\d+)@", printed)))
    assert len(pids) == 2
    assert process.stop(signal.SIGINT) == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.one_database
def test_it_refuses_the_broker_in_memory(project: Project, write: Callable[[str], None]) -> None:
    write(CODE.format("old"))
    text = "from dev_settings import *\nJOBS = {**JOBS, 'BROKER_URL': 'memory://'}\n"
    Path(project.folder / "code" / "memory_settings.py").write_text(text)
    process = rundev(project, settings="memory_settings")
    assert process.wait(60) == 1
    assert "CommandError: JOBS['BROKER_URL'] is memory://" in process.output()
