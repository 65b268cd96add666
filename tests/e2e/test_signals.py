"""SIGHUP and SIGQUIT to a running worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs.models import TaskResult
from tests.project import Process, Project
from tests.services import wait_for
from tests.tasks import add, wait_at
from tests.workers import Gate, alive, children, put_message, ready_worker

CODE = "from jobs import task\n\n@task(name='fresh')\ndef fresh():\n    return {!r}\n"


class FreshApp:
    """An app beside the project whose code changes while a worker runs it."""

    def __init__(self, project: Project, folder: Path) -> None:
        self._project = project
        self._folder = folder
        self._tasks = folder / "fresh_app" / "tasks.py"
        self._tasks.parent.mkdir()
        (self._tasks.parent / "__init__.py").touch()
        # Without bytecode: what is written twice in a second would not be compiled anew.
        (folder / "fresh_settings.py").write_text(
            "import sys\nsys.dont_write_bytecode = True\n"
            "from tests.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'fresh_app']\n"
        )

    def write(self, code: str) -> None:
        self._tasks.write_text(code)

    def worker(self, processes: int) -> Process:
        worker = self._project.manage(
            "runworker",
            "--processes",
            str(processes),
            DJANGO_SETTINGS_MODULE="fresh_settings",
            PYTHONPATH=os.pathsep.join([str(self._folder), self._project.env["PYTHONPATH"]]),
        )
        wait_for(
            lambda: worker.output().count(" ready, queues") == processes,
            what="the children to be ready",
        )
        return worker


@pytest.fixture
def fresh(project: Project, tmp_path: Path) -> FreshApp:
    return FreshApp(project, tmp_path)


def answer() -> str:
    """What the task in the fresh app returns."""
    task_id = put_message(task="fresh")
    wait_for(lambda: TaskResult.objects.filter(id=task_id).exists(), what="the fresh task's end")
    return str(TaskResult.objects.get(id=task_id).result)


def test_sighup_loads_the_new_code_child_by_child(fresh: FreshApp, tmp_path: Path) -> None:
    fresh.write(CODE.format("old"))
    worker = fresh.worker(2)
    before = children(worker)
    assert answer() == '"old"'
    gate = Gate(tmp_path / "gate")
    running = wait_at.delay(gate.path)
    gate.wait_for()
    fresh.write(CODE.format("new"))
    worker.send_signal(signal.SIGHUP)
    worker.wait_for_output("restarting the children one by one")
    # The child in the long task finishes it; until then it is replaced by nobody.
    assert alive(gate.processes()[0])
    gate.open()
    assert running.get(timeout=60) == gate.processes()[0]
    worker.wait_for_output("all children run the new code")
    after = children(worker)
    assert len(after) == 2
    assert not set(before) & set(after)
    assert answer() == '"new"'
    assert worker.stop() == 0


def test_sighup_with_broken_code_leaves_the_old(fresh: FreshApp) -> None:
    fresh.write(CODE.format("old"))
    worker = fresh.worker(1)
    before = children(worker)
    fresh.write("raise NameError('broken')")
    worker.send_signal(signal.SIGHUP)
    worker.wait_for_output("the old goes on")
    worker.wait_for_output("NameError")
    assert answer() == '"old"'
    assert children(worker) == before
    fresh.write(CODE.format("repaired"))
    worker.send_signal(signal.SIGHUP)
    worker.wait_for_output("all children run the new code")
    assert answer() == '"repaired"'
    assert worker.stop() == 0


def test_sigquit_prints_every_stack(project: Project, tmp_path: Path) -> None:
    worker = ready_worker(project, "--processes", "1", "--threads", "1")
    gate = Gate(tmp_path / "gate")
    running = wait_at.delay(gate.path)
    gate.wait_for()
    worker.send_signal(signal.SIGQUIT)
    worker.wait_for_output("in wait_at")
    worker.wait_for_output("supervisor.py")  # its own
    worker.wait_for_output("consumer.py")
    gate.open()
    assert running.get(timeout=60) in children(worker)
    assert add.delay(1, 2).get(timeout=60) == 3
    assert worker.stop() == 0
