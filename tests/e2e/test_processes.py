"""What tasks start, how children end, and what a worker needs from its surroundings."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.api.results import AsyncResult
from jobs.models import TaskResult
from jobs.states import State
from tests.project import ROOT, Process, Project
from tests.services import wait_for
from tests.tasks import add
from tests.workers import alive, children, on_redis, put_message

CODE = """
import asyncio, json, multiprocessing, os, signal, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from jobs import task

PROBE = '''
import json, os, signal, sys
print(json.dumps([os.environ.get("PYTHONPATH"), signal.getsignal(signal.SIGINT) is
    signal.default_int_handler, sys.stdin.read(), sorted(map(int, os.listdir("/proc/self/fd")))]))
'''

@task(name="probe")
def probe():
    return json.loads(subprocess.check_output([sys.executable, "-c", PROBE]))

@task(name="pool")
def pool(method):
    with multiprocessing.get_context(method).Pool(1) as workers:
        try:
            workers.apply_async(time.sleep, (600,)).get(timeout=0.5)
        except multiprocessing.TimeoutError:
            return "timed out"

def double(value):
    return 2 * value

@task(name="spawned")
def spawned(method):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        return list(executor.map(double, [1, 2]))

@task(name="terminate")
def terminate():
    codes = set()
    for _ in range(20):
        made = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        made.start()
        made.terminate()
        made.join(10)
        codes.add(made.exitcode)
    return sorted(codes)

@task(name="forks", atomic=True)
def forks():
    from django.contrib.auth.models import Group
    Group.objects.create(name="made")
    if (pid := os.fork()) == 0:
        Group.objects.count()  # by a connection of its own
        os._exit(3)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), Group.objects.count()]

@task(name="returns_twice")
def returns_twice():
    if (pid := os.fork()) == 0:
        return "the forked one"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@task(name="returns_twice_in_its_transaction", atomic=True)
def returns_twice_in_its_transaction():
    return returns_twice()

@task(name="closes_its_streams")
def closes_its_streams():
    sys.stdout.close()
    sys.stderr.close()
    return os.getpid()

@task(name="prints_on")
def prints_on():
    print("printed by a task", flush=True)
    return os.getpid()

@task(name="holds")
def holds(path):
    started = subprocess.Popen(["sleep", "3600"])
    with open(path + ".new", "w") as file:
        file.write(str(started.pid))
    os.rename(path + ".new", path)
    started.wait()

@task(name="leaves")
def leaves(what):
    if what == "thread":
        threading.Thread(target=time.sleep, args=(3600,)).start()
    elif what == "fork":
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,)).start()
    else:
        return subprocess.Popen(["sleep", "3600"]).pid

@task(name="leave_at_once")
def leave_at_once(path):
    with open(path, "a") as file:
        file.write("x")
    os._exit(0)

@task(name="stops_loop")
async def stops_loop():
    async def leaves():
        sys.exit(3)
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    asyncio.create_task(leaves())
    await asyncio.sleep(0.05)
    return "went on"

@task(name="leaves_orphan")
def leaves_orphan():
    # Gone from its group, so that only its parent's end is of concern.
    subprocess.run("(setsid sleep 0.1 &)", shell=True, check=True)

@task(name="prints")
def prints():
    print("hello", flush=True)
    return os.getpid()
"""


class App:
    """An app beside the project, with the tasks above."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder
        (folder / "odd_app").mkdir()
        (folder / "odd_app" / "__init__.py").touch()
        (folder / "odd_app" / "tasks.py").write_text(CODE)
        self.settings("")

    def settings(self, text: str) -> None:
        (self.folder / "odd_settings.py").write_text(
            "from tests.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'odd_app']\n" + text
        )

    @property
    def env(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "odd_settings",
            "PYTHONPATH": os.pathsep.join([str(self.folder), self.project.env["PYTHONPATH"]]),
        }

    def worker(self, *args: str) -> Process:
        worker = self.project.manage("runworker", "--processes", "1", *args, **self.env)
        wait_for(
            lambda: " ready, queues" in worker.output() or worker.poll() is not None,
            what="the child to be ready",
        )
        assert worker.poll() is None, worker.output()
        return worker


@pytest.fixture
def app(project: Project, tmp_path: Path) -> App:
    return App(project, tmp_path)


def call(name: str, *args: Any, **fields: Any) -> Any:
    """What a task of the app returns, or raises."""
    task_id = put_message(task=name, args=list(args), **fields)
    wait_for(lambda: TaskResult.objects.filter(id=task_id).exists(), what=f"the end of {name}")
    return AsyncResult(task_id).get(timeout=60)


def started(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text(), what="a subprocess"))


@contextlib.contextmanager
def ended(pid: int) -> Iterator[None]:
    assert alive(pid)
    yield
    wait_for(lambda: not alive(pid), what=f"the end of process {pid}")


@pytest.mark.parametrize(("threads", "preload"), [("0", True), ("2", True), ("0", False)])
def test_what_a_task_starts_is_as_if_started_elsewhere(
    app: App, threads: str, preload: bool
) -> None:
    app.settings(f"JOBS = {{**JOBS, 'PRELOAD': {preload}}}\n")
    worker = app.worker("--threads", threads)
    path, interruptible, stdin, descriptors = call("probe")
    assert path == app.env["PYTHONPATH"]
    assert interruptible
    assert stdin == ""
    assert descriptors == [0, 1, 2, 3]  # the last is that of the folder which it lists
    assert call("terminate") == [-signal.SIGTERM]
    assert call("pool", "fork") == "timed out"
    for method in ("fork", "spawn", "forkserver"):
        assert call("spawned", method) == [2, 4]
    assert call("returns_twice") == 0
    assert call("returns_twice_in_its_transaction") == 0
    assert add.delay(1, 2).get(timeout=60) == 3
    assert worker.stop() == 0


def test_a_forked_process_leaves_the_connections_alone(app: App) -> None:
    worker = app.worker()
    assert call("forks") == [3, 1]
    assert worker.stop() == 0


def test_what_a_task_has_started_ends_with_its_time(app: App, tmp_path: Path) -> None:
    worker = app.worker("--time-limit", "10")
    task_id = put_message(task="holds", args=[str(tmp_path / "pid")])
    with ended(started(tmp_path / "pid")):
        wait_for(lambda: TaskResult.objects.filter(id=task_id, state=State.FAILURE).exists())
    assert worker.stop() == 0


@pytest.mark.parametrize("whose", ["child", "supervisor"])
def test_what_a_task_has_started_ends_with_the_worker(app: App, tmp_path: Path, whose: str) -> None:
    worker = app.worker()
    put_message(task="holds", args=[str(tmp_path / "pid")])
    with ended(started(tmp_path / "pid")):
        os.kill(worker.pid if whose == "supervisor" else children(worker)[0], signal.SIGKILL)


def test_a_child_lives_as_long_as_the_process_that_it_is_tied_to() -> None:
    """Not as long as the thread that started it: killed by its end, when the process is about to
    end, it could not take along what its tasks have started."""
    read, write = os.pipe()
    code = (
        "import sys, time; from jobs.worker.__main__ import die_with_parent; "
        "die_with_parent(int(sys.argv[1])); print('tied', flush=True); time.sleep(60)"
    )
    children: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(read)],
            pass_fds=[read],
            stdout=subprocess.PIPE,
            process_group=0,
            cwd=ROOT,
        )
        children.append(child)
        assert child.stdout
        assert child.stdout.readline() == b"tied\n"

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    with children[0] as child:
        os.close(read)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        os.close(write)
        assert child.wait(30) == -signal.SIGKILL


def test_a_task_that_closes_the_streams(app: App) -> None:
    worker = app.worker()
    assert call("closes_its_streams") == call("prints_on")
    assert worker.stop() == 0
    assert "printed by a task" in worker.output()


def test_what_a_task_has_left_holds_up_nobody(app: App) -> None:
    app.settings("JOBS = {**JOBS, 'MAX_TASKS_PER_CHILD': 1}")
    quick = "from jobs.worker.supervisor import slot\nslot._LEAVING = 2.0\n"
    (app.folder / "odd_app" / "tasks.py").write_text(CODE + quick)
    worker = app.worker()
    for what in ("thread", "fork"):
        # The successor of the child before may not have been started yet.
        (before,) = wait_for(lambda: children(worker), what="a child")
        call("leaves", what)
        wait_for(lambda before=before: before not in children(worker), what="another child")
    pid = call("leaves", "program")
    wait_for(lambda: not alive(pid), what="its end")
    assert worker.stop() == 0
    assert worker.output().count("doesn't leave, since a task has left") == 2


def test_an_end_that_was_not_meant_is_a_crash(app: App, tmp_path: Path) -> None:
    app.settings("JOBS = {**JOBS, 'MAX_CRASHES': 2}")
    worker = app.worker()
    task_id = put_message(task="leave_at_once", args=[str(tmp_path / "ran")])
    wait_for(lambda: TaskResult.objects.filter(id=task_id, state=State.FAILURE).exists())
    assert (tmp_path / "ran").read_text() == "xxx"
    assert worker.output().count("ended: exit code 0") == 3
    assert worker.stop() == 0


def test_nothing_ends_the_event_loop(app: App) -> None:
    worker = app.worker()
    (before,) = children(worker)
    assert call("stops_loop") == "went on"
    assert call("stops_loop") == "went on"
    assert children(worker) == [before]
    assert worker.stop() == 0


def test_a_refused_queue_stops_no_other(app: App) -> None:
    with app.project.valkey.client() as client:
        for key in ("high", "{high}:consumers", "{high}:workers"):
            client.set(key, "of somebody else")
        worker = app.worker("--queues", "high,default,low")
        assert add.delay(1, 2).get(timeout=60) == 3
        assert add.apply_async((3, 4), queue="low").get(timeout=60) == 7
        worker.wait_for_output("queue high is left out")
        worker.wait_for_output("can't renew leases on queue high")
        client.delete("high", "{high}:consumers", "{high}:workers")
        assert add.apply_async((5, 6), queue="high").get(timeout=60) == 11
    assert worker.output().count("is left out") == 1
    assert worker.stop() == 0


def test_sighup_keeps_leases_while_the_code_is_slow(app: App, tmp_path: Path) -> None:
    app.settings(
        "JOBS = {**JOBS, 'LEASE_SECONDS': 3.0}\n"
        "import os, time\n"
        f"slow, tried = r'{tmp_path / 'slow'}', r'{tmp_path / 'tried'}'\n"
        "while os.path.exists(slow):\n"
        "    open(tried, 'w').close()\n"
        "    time.sleep(0.05)\n"
    )
    worker = app.worker()
    with app.project.valkey.client() as client:

        def lease() -> float:
            """The end of the only one."""
            ((_, ends),) = client.zrange("{default}:consumers", 0, -1, withscores=True)
            return float(ends)

        wait_for(lambda: client.exists("{default}:consumers"), what="the first lease")
        (tmp_path / "slow").touch()
        worker.send_signal(signal.SIGHUP)
        wait_for((tmp_path / "tried").exists, what="the trial of the new code")
        for _ in range(4):  # a renewal at each third of a lease
            before = lease()
            wait_for(lambda before=before: lease() > before, what="the lease to be renewed")
    assert add.delay(1, 2).get(timeout=60) == 3
    (tmp_path / "slow").unlink()
    worker.wait_for_output("all children run the new code")
    assert worker.stop() == 0


def test_sigterm_ends_the_trial_of_new_code(app: App, tmp_path: Path) -> None:
    app.settings(
        "import os, time\n"
        f"if os.path.exists(r'{tmp_path / 'slow'}'):\n"
        f"    open(r'{tmp_path / 'trying'}', 'w').write(str(os.getpid())); time.sleep(3600)\n"
    )
    worker = app.worker()
    (tmp_path / "slow").touch()
    worker.send_signal(signal.SIGHUP)
    with ended(started(tmp_path / "trying")):
        assert worker.stop() == 0


def test_sighup_while_the_project_loads_is_no_end(app: App, tmp_path: Path) -> None:
    (tmp_path / "odd_app" / "tasks.py").write_text(
        "import os, pathlib, time\n"
        f"here = pathlib.Path(r'{tmp_path}')\n"
        "(here / f'loading-{os.getpid()}').touch()\n"
        "while not (here / 'go').exists(): time.sleep(0.05)\n"
    )
    for command in (["runworker", "--processes", "1"], ["runbeat"]):
        process = app.project.manage(*command, **app.env)
        loading = tmp_path / f"loading-{process.pid}"
        wait_for(loading.exists, what="it to load")
        process.send_signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        process.wait_for_output(" ready, queues" if "runworker" in command else "Beat is running")
        process.send_signal(signal.SIGHUP)
        assert process.stop() == 0
        (tmp_path / "go").unlink()


def test_it_says_what_it_is_without_any_logging(app: App) -> None:
    app.settings("LOGGING = {}\n")
    worker = app.project.manage("runworker", "--processes", "1", "-Q", "low,high", **app.env)
    said = worker.wait_for_output("is ready")
    assert "queues low, high" in said
    assert app.project.redis_url in said
    assert worker.stop() == 0
    silent = app.project.manage("runworker", "--burst", "-v", "0", **app.env)
    assert silent.wait(60) == 0
    assert silent.output() == ""
    sent = add.delay(1, 2)
    telling = app.project.manage("runworker", "--processes", "1", "--burst", "-v", "2", **app.env)
    assert telling.wait(60) == 0
    said = telling.output()
    assert f"task {add.name}[{sent.id}] begins\n" in said
    assert f"task {add.name}[{sent.id}]: SUCCESS after 0." in said


def test_it_says_so_once(app: App) -> None:
    assert app.worker().output().count(", queues default") <= 2


@pytest.mark.parametrize("command", ["runworker", "runbeat", "jobs_recover", "jobs_status"])
def test_the_broker_of_tests_is_refused(app: App, command: str) -> None:
    app.settings("JOBS = {**JOBS, 'BROKER_URL': 'memory://'}\n")
    said = app.project.run(command, status=1, **app.env)
    assert "memory://, a broker inside one process" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "| true", ">/dev/full 2>&1"])
def test_it_needs_no_standard_streams(app: App, closed: str) -> None:
    command = f"exec {sys.executable} manage.py runworker --processes 1 {closed}"
    if closed == "| true":
        command = f"{sys.executable} manage.py runworker --processes 1 | true"
    env = {**app.project.env, **app.env, "TMPDIR": "/nonexistent", "HOME": "/nonexistent"}
    with subprocess.Popen(command, shell=True, env=env, start_new_session=True) as shell:
        try:
            pid = call("prints")
            assert call("prints") == pid
            supervisor = int(
                re.findall(r"\d+", Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2])[0]
            )
            os.kill(supervisor, signal.SIGTERM)
            wait_for(lambda: not alive(pid), what="the child's end")
            assert shell.wait(30) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


def test_burst_without_a_child_that_can_start(app: App) -> None:
    (app.folder / "odd_app" / "tasks.py").write_text(
        "import sys\nif sys.argv[0] == '-c': raise NameError('only in a child')\n"
    )
    app.settings("JOBS = {**JOBS, 'PRELOAD': False}\n")  # a fork has loaded what its parent has
    said = app.project.run("runworker", "--burst", "--processes", "1", status=1, **app.env)
    assert "NameError: only in a child" in said
    assert "of 1 children, 1 could not start" in said


@pytest.mark.skipif(os.getuid() != 0, reason="needs a namespace of processes")
def test_process_1_reaps(app: App) -> None:
    command = ["unshare", "-p", "-f", "--mount-proc", "--kill-child", sys.executable]
    log = app.folder / "pid1.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*command, "manage.py", "runworker", "--processes", "1"],
            env={**app.project.env, **app.env},
            stdout=out,
            stderr=out,
        ) as outer,
    ):
        try:
            for _ in range(3):
                call("leaves_orphan")
            (supervisor,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()

            def zombies() -> list[int]:
                found = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
                return [int(pid) for pid in found if not alive(int(pid))]

            wait_for(lambda: not zombies(), 10, what=f"{zombies} to be reaped")
        finally:
            outer.kill()
    assert on_redis() == (0, 0)
