"""A warm interpreter that forks the Python processes of tests, most of them `manage.py`.

A fresh interpreter spends most of its start on importing Django and the drivers, which is the same
each time, and tests start more than a thousand. `python -m tests.starter` imports all of that once
and then forks: what it forks sets up its own environment, import path, settings and apps, and runs
its script as a fresh interpreter would. The forked process is a child of the test process, which
waits for it as for any other.

Most of them use the settings of the tests, as they are or with other ``JOBS``. For these the
interpreter keeps forks that have set Django up as well (`_set_up`), and that fork in their turn:
what is started then reads its own settings, and has the apps of the fork.

Only Linux can give it to the test process. `Starter.suits` says what needs a real start.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

#: From <sys/prctl.h>.
_PR_SET_CHILD_SUBREAPER = 36

#: What most processes import, and what needs no settings.
_MODULES = (
    "asyncio",
    "ctypes",
    "django.contrib.admin.utils",
    "django.contrib.admin.widgets",
    "django.contrib.auth.hashers",
    "django.contrib.staticfiles.finders",
    "django.core.management.commands.check",
    "django.core.management.commands.migrate",
    "django.core.management.commands.shell",
    "django.db.backends.sqlite3.base",
    "django.db.migrations",
    "django.forms",
    "django.middleware.csrf",
    "django.template.defaultfilters",
    "django.template.defaulttags",
    "django.template.loader_tags",
    "django.test.client",
    "django.urls",
    "django.utils.translation.reloader",
    "environ",
    "jobs.broker.memory",
    "jobs.broker.redis",
    "jobs.exceptions",
    "jobs.management.processes",
    "jobs.message",
    "jobs.routing",
    "jobs.timing.crontab",
    "jobs.worker.board",
    "logging.config",
    "redis.asyncio",
)

#: The start of the names of variables that an interpreter reads before any module.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "MALLOC", "LD_")

#: Largest request: the environment, most of all.
_REQUEST_BYTES = 200_000

#: What a process that has set Django up may find changed in the environment: it matters to ``JOBS``
#: alone, or to nothing.
READ_ANEW = {"REDIS_URL", "DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTEST_CURRENT_TEST"}

#: The settings with which forks set Django up.
SETTINGS = "tests.settings"

#: What most processes import then.
_MODULES_OF_APPS = (
    "jobs.management.commands.runbeat",
    "jobs.management.commands.runworker",
    "jobs.worker.child",
    "jobs.worker.forking",
    "jobsite.urls",
)

#: The commands whose process is prepared once the app is imported (`jobs.management.processes`).
_PREPARED = ("runworker", "runbeat")


class Starter:
    """The test process's end."""

    def __init__(self, env: dict[str, str]) -> None:
        """``env``: what the interpreter itself starts with, when it is needed first."""
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        #: The environment in which forks have set Django up, without what is read anew.
        self._set_up_in: dict[str, str] | None = None

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process:
            self._socket.close()  # ends it
            self._process.wait()

    def suits(self, command: list[str], env: dict[str, str]) -> bool:
        """Whether this runs a script, and an interpreter would start with it as this one has.

        The import path may differ: it is set after the fork.
        """
        script = command[0] == sys.executable and command[1].endswith(".py")
        if sys.platform != "linux" or not script:
            return False
        changed = {name for name in {*env, *self._env} if env.get(name) != self._env.get(name)}
        return not any(name.startswith(_READ_AT_START) for name in changed - {"PYTHONPATH"})

    def start(self, args: list[str], env: dict[str, str], out: int, *, usual: bool = False) -> int:
        """Run a script as `Process` does; the id of the process, a child of this one.

        ``args``: the script and its arguments. ``out``: descriptor of its output. ``usual``: the
        settings are those of the tests but for ``JOBS``, so that Django may be set up already.
        """
        if self._process is None:
            self._start()
        command = ""
        if usual:
            others = {name: value for name, value in env.items() if name not in READ_ANEW}
            self._set_up_in = self._set_up_in or others
            if others == self._set_up_in:
                command = args[1] if args[1] in _PREPARED else "another"
        request = json.dumps([args, env, command]).encode()
        # Who inherits a process whose parent ends is decided at that end. Later orphans, such as
        # the children of a killed worker, are not for this process to wait for.
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        assert prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
        try:
            socket.send_fds(self._socket, [request], [out])
            answer = self._socket.recv(100)
        finally:
            prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        assert answer, "the starter of processes has ended; see what it has printed"
        return int(answer)

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.starter", str(theirs.fileno())],
                env=self._env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )


class Request(NamedTuple):
    args: list[str]
    env: dict[str, str]
    #: For which command Django may be set up already; empty: it may not.
    command: str


def serve(
    control: socket.socket, own_path: list[str], set_up: dict[str, socket.socket] | None
) -> Request | None:
    """Fork for each request. None at the end of requests; in a forked process, what to run.

    ``own_path``: the part of ``sys.path`` that is the interpreter's own. ``set_up``: links to the
    forks that have set Django up, by their command; None in such a fork.
    """
    while True:
        message, (*fds,), _, _ = socket.recv_fds(control, _REQUEST_BYTES, 1)
        if not message:
            return None
        (out,) = fds
        request = Request(*json.loads(message))
        if request.command and set_up is not None:
            if request.command not in set_up:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                if os.fork() == 0:
                    for link in (control, ours, *set_up.values()):
                        link.close()
                    os.close(out)
                    _set_up(request, own_path)
                    return serve(theirs, own_path, None)
                theirs.close()
                set_up[request.command] = ours
            link = set_up[request.command]
            socket.send_fds(link, [message], [out])
            os.close(out)
            control.send(link.recv(100))
            continue
        read, write = os.pipe()
        wait, go = os.pipe()
        parent = os.fork()
        if parent == 0:
            # Its end gives the forked process to the test process.
            if os.fork():
                os._exit(0)
            os.setsid()
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.write(write, str(os.getpid()).encode())
            os.close(go)
            os.read(wait, 1)  # until the process between has ended: then its parent is the test's
            for fd in (control.detach(), out, read, write, wait):
                os.close(fd)
            for link in (set_up or {}).values():
                link.close()
            return request
        for fd in (out, write, wait):
            os.close(fd)
        os.waitpid(parent, 0)
        os.close(go)
        control.send(os.read(read, 100))
        os.close(read)


def become(env: dict[str, str], args: list[str], own_path: list[str]) -> None:
    """Change what a fresh interpreter takes from its environment and command line."""
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    added = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = [str((ROOT / args[0]).parent), *added, *own_path]
    sys.argv[:] = args


def _set_up(request: Request, own_path: list[str]) -> None:
    """Set Django up with the settings of the tests, as this command does, and import what most
    processes need of the project."""
    become(request.env, ["manage.py", request.command], own_path)
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    import django

    django.setup()
    for name in _MODULES_OF_APPS:
        importlib.import_module(name)
    _share()


def _read_settings() -> None:
    """Read the settings of this process where Django has been set up with others, which differ in
    ``JOBS`` alone."""
    from django.conf import Settings, settings
    from django.core.signals import setting_changed

    for name in ("jobsite.settings", SETTINGS):
        del sys.modules[name]
    settings._wrapped = Settings(os.environ["DJANGO_SETTINGS_MODULE"])
    setting_changed.send(Settings, setting="JOBS", value=settings.JOBS, enter=True)


def _share() -> None:
    """Freeze what is imported, for the forked processes: each collection there would copy all the
    pages that they share, which takes longer than their own imports."""
    gc.collect()
    gc.freeze()


def main(fd: int) -> None:
    from django.apps import apps
    from django.conf import settings

    for name in _MODULES:
        importlib.import_module(name)
    for kind, backend in (("postgres", "postgresql"), ("mysql", "mysql")):
        if os.environ.get("DATABASE_URL", "").startswith(kind):
            importlib.import_module(f"django.db.backends.{backend}.base")
    assert not settings.configured, "a module of _MODULES reads settings"
    known = {str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    own_path = [place for place in sys.path if place not in known]
    _share()
    asked = serve(socket.socket(fileno=fd), own_path, {})
    if asked is None:
        return
    become(asked.env, asked.args, own_path)
    if apps.ready:
        _read_settings()
    script = ROOT / asked.args[0]
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = str(script)
    exec(compile(script.read_bytes(), script, "exec"), vars(module))


if __name__ == "__main__":
    main(int(sys.argv[1]))
