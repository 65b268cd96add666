"""A worker's children as forks of a process that has loaded the project, and as fresh
interpreters."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.worker import forkserver
from tests.project import ROOT, Process, Project
from tests.services import wait_for
from tests.tasks import add, wait_at
from tests.workers import (
    Gate,
    alive,
    children,
    fork_server,
    processes_below,
    put_message,
)

CODE = """
import atexit, gc, multiprocessing, os, pathlib, random, signal, sys, threading
from django.utils import translation
from jobs import message, task

HERE = pathlib.Path(__file__).parent

def note(name):
    with open(HERE / name, "a") as file:
        file.write(f"{os.getpid()}\\n")

note("loaded")
atexit.register(note, "left")
# What a fork must not repeat.
message.new_id()
random.random()

@task(name="numbers")
def numbers():
    key = bytes(multiprocessing.current_process().authkey).hex()
    return [random.random(), message.new_id()[14:], key]

@task(name="likeness")
def likeness():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0])
        except OSError:
            pass
    status = pathlib.Path("/proc/self/status").read_text()
    return {
        "descriptors": sorted(links),
        "environment": dict(os.environ),
        "handlers": {int(n): str(signal.getsignal(n)).partition(" at 0x")[0]
            for n in signal.valid_signals()},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "ignored": [line for line in status.splitlines() if line[:6] in ("SigIgn", "SigCgt")],
        "stdin": sys.stdin.read(),
        "arguments": [sys.argv[0], len(sys.argv)],
        "main": sys.modules["__main__"].__spec__.name,
        "path": sys.path,
        "directory": os.getcwd(),
        "umask": os.umask(0o022),
        "group": os.getpgrp() == os.getpid(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "gc": [gc.isenabled(), gc.get_threshold()],
        "language": translation.get_language(),
        "streams": [type(sys.stdout).__name__, sys.stdout is sys.__stdout__, sys.stdout.encoding],
        "start method": multiprocessing.get_start_method(allow_none=True),
        "name": multiprocessing.current_process().name,
    }
"""


class App:
    """An app beside the project, with the tasks above."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder / "forked_app"
        self.folder.mkdir()
        (self.folder / "__init__.py").touch()
        self.write("")
        self.settings = folder / "forked_settings.py"
        self.set("")

    def write(self, more: str) -> None:
        new = self.folder / "new"
        new.write_text(CODE + more)
        new.replace(self.folder / "tasks.py")

    def set(self, more: str) -> None:
        # Without bytecode: what is written twice in a second would not be compiled anew.
        self.settings.write_text(
            "import sys\nsys.dont_write_bytecode = True\n"
            "from tests.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'forked_app']\n"
            + more
        )

    @property
    def env(self) -> dict[str, str]:
        path = [str(self.folder.parent), self.project.env["PYTHONPATH"]]
        return {
            "DJANGO_SETTINGS_MODULE": "forked_settings",
            "PYTHONPATH": os.pathsep.join(path),
        }

    def worker(self, *args: str, processes: int = 1) -> Process:
        command = ["runworker", "--processes", str(processes), *args]
        worker = self.project.manage(*command, **self.env)
        ready(worker, processes)
        return worker

    def noted(self, name: str) -> list[int]:
        path = self.folder / name
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []


@pytest.fixture
def app(project: Project, tmp_path: Path) -> App:
    return App(project, tmp_path)


def ready(worker: Process, count: int) -> None:
    """Wait until so many children of a worker have been ready since its start."""
    wait_for(
        lambda: worker.output().count(" ready, queues") >= count or worker.poll() is not None,
        what=f"{count} children to be ready",
    )
    assert worker.poll() is None, worker.output()


def call(name: str) -> Any:
    from jobs.api.results import AsyncResult
    from jobs.models import TaskResult

    task_id = put_message(task=name)
    wait_for(lambda: TaskResult.objects.filter(id=task_id).exists(), what=f"the end of {name}")
    return AsyncResult(task_id).get(timeout=30)


#: The names of the processes below a worker with one child.
ONE_FORK = [f"{forkserver.CHILD}1", forkserver.NAME]


def names(worker: Process) -> list[str]:
    return sorted(name for _, name in processes_below(worker.pid))


def replace_child(worker: Process) -> None:
    """kill -9 for the only child, and wait for its successor."""
    before = worker.output().count(" ready, queues")
    os.kill(children(worker)[0], signal.SIGKILL)
    ready(worker, before + 1)


def test_each_child_has_its_own_numbers(app: App) -> None:
    worker = app.worker()
    assert names(worker) == ONE_FORK
    first = call("numbers")
    replace_child(worker)
    second = call("numbers")
    assert [one == other for one, other in zip(first, second, strict=True)] == [False] * 3
    assert app.noted("loaded") == [worker.pid]  # neither child has loaded the project
    (last,) = children(worker)
    assert worker.stop() == 0
    # As a fresh interpreter, the child has called what its modules registered for the end.
    assert sorted(app.noted("left")) == sorted([last, worker.pid])


def test_a_fork_is_like_a_fresh_interpreter(app: App) -> None:
    """Also where the worker was started with a descriptor, a blocked signal and an input."""
    found = []
    for preload in (True, False):
        app.set(f"JOBS = {{**JOBS, 'PRELOAD': {preload}}}\n")
        code = (
            "import os, signal, sys\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])\n"
            "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
            "os.set_inheritable(os.open('/etc/passwd', os.O_RDONLY), True)\n"
            "os.execv(sys.executable, [sys.executable, 'manage.py', 'runworker', "
            "'--processes', '1'])\n"
        )
        with (
            (app.folder / f"{preload}.log").open("wb") as out,
            subprocess.Popen(
                [sys.executable, "-c", code],
                env={**app.project.env, **app.env},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            ) as worker,
        ):
            try:
                found.append(call("likeness"))
                kind = [name for _, name in processes_below(worker.pid)]
                assert (sorted(kind) == ONE_FORK) == preload
            finally:
                worker.terminate()
                assert worker.wait(60) == 0
    forked, fresh = found
    # The log of each run has a name of its own. How many connections there are, to the broker by a
    # socket and to SQLite by its files, depends on what the other threads do at that moment.
    for one in found:
        links = [link for link in one["descriptors"] if not link.endswith(".log")]
        one["descriptors"] = [link for link in links if link != "socket" and ".sqlite3" not in link]
    assert forked == fresh


def test_the_fork_server_has_nothing_open(app: App) -> None:
    worker = app.worker(processes=2)
    folder = Path(f"/proc/{fork_server(worker)}/fd")
    opened = {int(path.name): str(path.readlink()) for path in folder.iterdir()}
    assert {fd for fd in opened if fd < 3} == {0, 1, 2}
    (link,) = (opened[fd] for fd in opened if fd > 2)
    assert link.startswith("socket:")
    assert worker.stop() == 0


def test_what_the_project_leaves_is_said_once(app: App) -> None:
    """What else may be left, see `tests.unit.worker.test_leftovers`."""
    app.write("threading.Thread(target=threading.Event().wait, name='busy', daemon=True).start()\n")
    worker = app.worker(processes=2)
    assert forkserver.NAME not in names(worker)
    assert len(children(worker)) == 2
    assert add.delay(1, 2).get(timeout=30) == 3
    os.kill(children(worker)[0], signal.SIGKILL)
    ready(worker, 3)
    assert worker.output().count("start as fresh interpreters") == 1
    assert "the thread 'busy' runs" in worker.output()
    assert "JOBS['PRELOAD'] = False" in worker.output()
    assert worker.stop() == 0


def test_the_fork_server_is_killed(app: App, tmp_path: Path) -> None:
    worker = app.worker()
    (before,) = children(worker)
    gate = Gate(tmp_path / "gate")
    running = wait_at.delay(gate.path)
    gate.wait_for()
    killed = fork_server(worker)
    os.kill(killed, signal.SIGKILL)
    worker.wait_for_output("the fork server ended: killed by SIGKILL")
    wait_for(lambda: forkserver.NAME in names(worker), what="another fork server")
    assert fork_server(worker) != killed
    # It took nobody along.
    gate.open()
    assert running.get(timeout=30) == before
    replace_child(worker)
    assert add.delay(1, 2).get(timeout=30) == 3
    wait_for(lambda: names(worker) == ONE_FORK, what="a fork")
    loaded = app.noted("loaded")
    assert loaded == [worker.pid, fork_server(worker)]
    assert worker.stop() == 0


def test_both_are_killed(app: App) -> None:
    worker = app.worker()
    (child,) = children(worker)
    for pid in (fork_server(worker), child):
        os.kill(pid, signal.SIGKILL)
    ready(worker, 2)
    assert add.delay(1, 2).get(timeout=30) == 3
    # If the child was to be started before the fork server was, it is a fresh interpreter.
    wait_for(lambda: forkserver.NAME in names(worker), what="another fork server")
    replace_child(worker)
    assert names(worker) == ONE_FORK
    assert worker.stop() == 0


def test_the_fork_server_hangs(app: App) -> None:
    worker = app.worker()
    os.kill(fork_server(worker), signal.SIGSTOP)
    replace_child(worker)
    assert "hasn't answered" in worker.output()
    assert add.delay(1, 2).get(timeout=30) == 3
    assert len(children(worker)) == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_fork_server_ends_with_the_worker(app: App, how: str) -> None:
    worker = app.worker(processes=2)
    below = [pid for pid, _ in processes_below(worker.pid)]
    assert len(below) == 3
    if how == "kill":
        worker.kill()
    else:
        assert worker.stop() == 0
    wait_for(lambda: not any(alive(pid) for pid in below), what="all processes to end")


def test_signals_to_every_process_are_the_supervisors_affair(app: App) -> None:
    """As of a service manager that signals the whole group."""
    worker = app.worker(processes=2)
    server = fork_server(worker)
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(server, signum)
    os.kill(server, signal.SIGQUIT)
    worker.wait_for_output("in serve")
    assert fork_server(worker) == server
    for pid in [pid for pid, _ in processes_below(worker.pid)]:
        os.kill(pid, signal.SIGTERM)
    assert worker.stop() == 0
    assert "the fork server ended" not in worker.output()


def test_sighup_replaces_the_fork_server(app: App) -> None:
    worker = app.worker(processes=2)
    before = fork_server(worker)
    app.write("thread = threading.Thread(target=threading.Event().wait, daemon=True)\n"
              "thread.start()\n")  # fmt: skip
    worker.send_signal(signal.SIGHUP)
    worker.wait_for_output("all children run the new code")
    assert forkserver.NAME not in names(worker)
    assert not alive(before)
    assert "start as fresh interpreters" in worker.output()
    app.write("")
    ended = worker.output().count("all children run the new code")
    worker.send_signal(signal.SIGHUP)
    wait_for(
        lambda: worker.output().count("all children run the new code") > ended,
        what="the new code to run",
    )
    assert names(worker) == [f"{forkserver.CHILD}1", f"{forkserver.CHILD}2", forkserver.NAME]
    # Printed by a child of the new fork server.
    app.write("")
    assert add.delay(1, 2).get(timeout=30) == 3
    assert worker.stop() == 0


def test_reload_while_the_code_is_broken(app: App) -> None:
    worker = app.worker("--reload")
    app.write("raise NameError('broken')")
    worker.wait_for_output("NameError: broken")
    worker.wait_for_output("exit code 1")
    before = worker.output().count(" ready, queues")
    app.write("")
    ready(worker, before + 1)
    # The first child may be a fresh interpreter that was started before the change was seen.
    wait_for(lambda: names(worker) == ONE_FORK, what="a fork")
    assert add.delay(1, 2).get(timeout=30) == 3
    assert worker.stop() == 0


def test_sigterm_while_the_fork_server_loads(app: App, tmp_path: Path) -> None:
    app.write(
        f"if pathlib.Path({str(tmp_path / 'slow')!r}).exists():\n"
        "    note('trying')\n"
        "    threading.Event().wait()\n"
    )
    worker = app.worker()
    (tmp_path / "slow").touch()
    os.kill(fork_server(worker), signal.SIGKILL)
    wait_for(lambda: app.noted("trying"), what="another one to load")
    (loading,) = app.noted("trying")
    assert worker.stop() == 0
    wait_for(lambda: not alive(loading), what="its end")


def test_without_it(app: App) -> None:
    app.set("JOBS = {**JOBS, 'PRELOAD': False}\n")
    worker = app.worker()
    assert forkserver.NAME not in names(worker)
    replace_child(worker)
    assert len(set(app.noted("loaded"))) == 3
    ended = set(app.noted("loaded"))
    worker.send_signal(signal.SIGHUP)
    worker.wait_for_output("all children run the new code")
    assert forkserver.NAME not in names(worker)
    assert set(app.noted("loaded")) > ended
    assert "fresh interpreters" not in worker.output()
    assert worker.stop() == 0


def test_called_by_other_code(app: App) -> None:
    """What ran in the process before isn't known, so the fork server is a process of its own."""
    code = (
        "import os, threading, django; django.setup()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "from django.core.management import call_command\n"
        "call_command('runworker', processes=1)\n"
    )
    (app.folder / "wrapper.py").write_text(code)
    worker = app.project.start(str(app.folder / "wrapper.py"), **app.env)
    with contextlib.ExitStack() as undo:
        undo.callback(worker.kill_group)
        ready(worker, 1)
        assert names(worker) == ONE_FORK
        assert add.delay(1, 2).get(timeout=30) == 3
        assert worker.stop() == 0
