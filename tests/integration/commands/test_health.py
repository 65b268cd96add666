"""`runworker --health-file`."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.project import Project
from tests.services import wait_for
from tests.workers import children, ready_worker

ONE = ("--processes", "1")
QUICK = {"LEASE_SECONDS": 1, "SOCKET_TIMEOUT": 2}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "healthy"


def touched_again(file: Path) -> None:
    before = file.stat().st_mtime_ns
    wait_for(lambda: file.stat().st_mtime_ns > before, what="the file to be touched again")


def test_touched_while_it_works_and_gone_at_the_end(project: Project, file: Path) -> None:
    worker = ready_worker(project, *ONE, "--health-file", str(file), jobs=QUICK)
    wait_for(file.exists, what="the file")
    touched_again(file)
    assert worker.stop() == 0
    assert not file.exists()


def test_a_former_worker_s_does_not_count(project: Project, file: Path) -> None:
    file.touch()
    project.valkey.stop()
    worker = project.manage("runworker", *ONE, "--health-file", str(file))
    wait_for(lambda: not file.exists(), what="its end")
    worker.stop(signal.SIGTERM)
    assert not file.exists()


def test_not_touched_without_a_broker(project: Project, file: Path) -> None:
    worker = ready_worker(project, *ONE, "--health-file", str(file), jobs=QUICK)
    wait_for(file.exists, what="the file")
    with project.valkey.frozen():
        worker.wait_for_output("the supervisor can't reach the broker")
        before = file.stat().st_mtime_ns
        wait_for(lambda: "is away; trying again" in worker.output(), what="the child to notice")
        assert file.stat().st_mtime_ns == before
    touched_again(file)
    assert len(children(worker)) == 1


def test_a_folder_that_is_none(project: Project, tmp_path: Path) -> None:
    printed = project.run("runworker", "--health-file", str(tmp_path / "no" / "file"), status=1)
    assert "There is no folder for the file" in printed
    assert "Traceback" not in printed
