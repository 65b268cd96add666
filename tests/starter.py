"""A warm interpreter that forks the Python processes of tests, most of them `manage.py`.

A fresh interpreter spends most of its start on importing Django and the drivers, which is the same
each time, and tests start more than a thousand. `python -m tests.starter` imports all of that once
and then forks: what it forks sets up its own environment, import path, settings and apps, and runs
its script as a fresh interpreter would. The forked process is a child of the test process, which
waits for it as for any other.

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
from typing import Any

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


class Starter:
    """The test process's end."""

    def __init__(self, env: dict[str, str]) -> None:
        """``env``: what the interpreter itself starts with, when it is needed first."""
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

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

    def start(self, args: list[str], env: dict[str, str], out: int) -> int:
        """Run a script as `Process` does; the id of the process, a child of this one.

        ``args``: the script and its arguments. ``out``: descriptor of its output.
        """
        if self._process is None:
            self._start()
        request = json.dumps([args, env]).encode()
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


def serve(control: socket.socket) -> tuple[list[str], dict[str, str]] | None:
    """Fork for each request. None at the end of requests; in a forked process, what to run."""
    while True:
        request, fds, _, _ = socket.recv_fds(control, _REQUEST_BYTES, 1)
        if not request:
            return None
        (out,) = fds
        read, write = os.pipe()
        parent = os.fork()
        if parent == 0:
            # Its end gives the forked process to the test process.
            if os.fork():
                os._exit(0)
            os.setsid()
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.write(write, str(os.getpid()).encode())
            for fd in (control.detach(), out, read, write):
                os.close(fd)
            args, env = json.loads(request)
            return args, env
        for fd in (out, write):
            os.close(fd)
        os.waitpid(parent, 0)
        control.send(os.read(read, 100))
        os.close(read)


def become(env: dict[str, str], args: list[str], own_path: list[str]) -> None:
    """Change what a fresh interpreter takes from its environment and command line.

    ``own_path``: the part of ``sys.path`` that is the interpreter's own.
    """
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    added = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = [str((ROOT / args[0]).parent), *added, *own_path]
    sys.argv[:] = args


def main(fd: int) -> None:
    from django.conf import settings

    for name in _MODULES:
        importlib.import_module(name)
    if os.environ.get("DATABASE_URL", "").startswith("postgres"):
        importlib.import_module("django.db.backends.postgresql.base")
    assert not settings.configured, "a module of _MODULES reads settings"
    known = {str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    own_path = [place for place in sys.path if place not in known]
    # What is imported here stays frozen in the forked processes: each collection there would copy
    # all the pages that they share, which takes longer than their own imports.
    gc.collect()
    gc.freeze()
    asked: Any = serve(socket.socket(fileno=fd))
    if asked is None:
        return
    args, env = asked
    become(env, args, own_path)
    script = ROOT / args[0]
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = str(script)
    exec(compile(script.read_bytes(), script, "exec"), vars(module))


if __name__ == "__main__":
    main(int(sys.argv[1]))
