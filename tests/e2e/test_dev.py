"""`make run`'s launcher: everything comes up together and goes down together."""

from __future__ import annotations

import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.broker import embedded
from tests.project import ROOT, Process
from tests.services import free_port, wait_for

Launch = Callable[..., Process]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "broker"


@pytest.fixture
def launch(tmp_path: Path, folder: Path) -> Iterator[Launch]:
    """Starts the launcher with a new database and an embedded broker of its own."""
    (tmp_path / "dev_settings.py").write_text(
        "from tests.settings import *\n"
        "DEBUG = True\n"
        f"JOBS = {{**JOBS, 'BROKER_URL': '', 'EMBEDDED_DIR': {str(folder)!r}}}\n"
    )
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "dev_settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'dev.sqlite3'}",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
    }
    launched: list[Process] = []

    def launch(port: int, **more: str) -> Process:
        command = [sys.executable, "-m", "jobsite.dev", "--port", str(port)]
        launched.append(Process(command, {**env, **more}, tmp_path / f"{len(launched)}.log"))
        return launched[-1]

    yield launch
    for process in launched:
        if process.poll() is None:
            process.stop(signal.SIGTERM, timeout=60)
    embedded.stop(folder)


def children_of(process: Process) -> list[int]:
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in task.read_text("utf-8").split()] if task.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_comes_up_and_ctrl_c_ends_all_of_it(launch: Launch, folder: Path) -> None:
    # Two at once, in one clone: both make the first user, and share the broker.
    ports = [free_port(), free_port()]
    both = [launch(port) for port in ports]
    for port, process in zip(ports, both, strict=True):
        process.wait_for_output("Ctrl-C ends all of it", timeout=100)
        assert "sign in as admin with the password admin" in process.output()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/", timeout=60) as answer:
            assert answer.status == 200
        # Only the web server is known to be up.
        process.wait_for_output(" ready, queues", timeout=60)
        process.wait_for_output("Beat is running", timeout=60)
        process.wait_for_output("The embedded broker runs as process", timeout=60)
    server = embedded.pid(folder)
    assert server
    children = [child for process in both for child in children_of(process)]
    first, second = both

    assert first.stop(signal.SIGINT, timeout=60) == 0
    assert "The embedded broker goes on" in first.output()
    assert embedded.pid(folder) == server
    assert second.poll() is None
    assert second.stop(signal.SIGINT, timeout=60) == 0
    for process in both:
        assert process.output().rstrip().endswith("All has ended.")
        assert "Traceback" not in process.output()
    assert embedded.running(folder) is None
    assert not [child for child in children if alive(child)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child through /proc")
def test_ctrl_c_while_all_is_still_starting(launch: Launch, folder: Path) -> None:
    process = launch(free_port())
    wait_for(lambda: len(children_of(process)) == 4 or process.poll() is not None, what="its parts")
    children = children_of(process)
    assert process.stop(signal.SIGINT, timeout=60) == 0
    assert process.output().rstrip().endswith("All has ended.")
    assert "Traceback" not in process.output()
    assert embedded.running(folder) is None
    assert not [child for child in children if alive(child)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child through /proc")
def test_when_one_part_dies_it_is_named_and_all_end(launch: Launch, folder: Path) -> None:
    process = launch(free_port())
    wait_for(lambda: len(children_of(process)) == 4 or process.poll() is not None, what="its parts")
    os.kill(children_of(process)[0], signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert "web ended by itself (SIGKILL)" in process.output()
    assert embedded.running(folder) is None


def test_a_taken_port_is_named(launch: Launch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = launch(port)
        assert process.wait(timeout=60) == 1
    assert f"Port {port} can't be used" in process.output()
    assert f"make run PORT={port + 1}" in process.output()
