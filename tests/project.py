"""Real processes of the project, for tests; the fixture `project` gives one `Project` a test."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import connection

from jobs.models import Schedule, ScheduleRun, TaskResult
from tests import services
from tests.starter import READ_ANEW, SETTINGS, Starter
from tests.starter import ROOT as ROOT

#: What the interpreter of each process gets.
FOR_PYTHON = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}

#: Rows of each kind that a report shows.
_ROWS = 20


class Process(subprocess.Popen[bytes]):
    """One `manage.py`, in a process group of its own, with its output in a file."""

    def __init__(
        self,
        command: list[str],
        env: dict[str, str],
        log: Path,
        starter: Starter | None = None,
        *,
        usual: bool = False,
    ) -> None:
        """``starter``: forks the process, if that is the same as starting an interpreter.
        ``usual``: for it (see `Starter.start`)."""
        self.log = log
        self._env = env
        self._usual = usual
        self._starter = starter if starter and starter.suits(command, env) else None
        with log.open("wb") as out:
            self._out = out.fileno()
            super().__init__(
                command,
                env=env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        """How `Popen` starts the process; the rest of it needs its id alone."""
        if self._starter is None:
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        self.pid = self._starter.start(args[1:], self._env, self._out, usual=self._usual)
        self._child_created = True

    def output(self) -> str:
        """What it and its children have printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str, timeout: float = 60) -> str:
        """Wait until it has printed this; raises with all it printed when it ends before."""

        def printed() -> bool:
            ended = self.poll() is not None
            found = text in self.output()
            assert found or not ended, (
                f"ended ({self.returncode}) without {text!r}:\n{self.output()}"
            )
            return found

        services.wait_for(printed, timeout, what=f"{text!r} in the output:\n{self.output()}")
        return self.output()

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal to this process alone, as a service manager does; its exit status."""
        self.send_signal(signum)
        return self.wait(timeout=timeout)

    def kill_group(self) -> None:
        """kill -9 for the process and all its children, as when the machine is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(timeout=20)


class Project:
    """Starts processes on the database and the Valkey server of one test."""

    wait_for = staticmethod(services.wait_for)

    def __init__(
        self,
        valkey: services.Valkey | services.SentinelTrio | services.ValkeyCluster,
        folder: Path,
        settings: str = SETTINGS,
        starter: Starter | None = None,
    ) -> None:
        self.valkey = valkey
        self.folder = folder
        self._settings = settings
        #: Forks processes where that is the same as starting an interpreter.
        self.starter = starter
        #: Settings that differ from the usual ones in ``JOBS`` alone.
        self.own_jobs: set[str] = set()
        self.processes: list[Process] = []

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    @property
    def database_url(self) -> str:
        return database_url(connection.settings_dict)

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            **FOR_PYTHON,
            "DJANGO_SETTINGS_MODULE": self._settings,
            "SECRET_KEY": settings.SECRET_KEY,
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
        }

    def manage(self, *args: str, **env: str) -> Process:
        """Start ``manage.py`` with these arguments, and these variables besides `env`."""
        return self.start("manage.py", *args, **env)

    def start(self, *args: str, **env: str) -> Process:
        """Start this Python with these arguments, in the root of the project."""
        log = self.folder / f"{len(self.processes)}-{Path(args[0]).stem}.log"
        command = [sys.executable, *args]
        settings = env.get("DJANGO_SETTINGS_MODULE", self._settings)
        usual = (
            args[0] == "manage.py"
            and settings in {SETTINGS, *self.own_jobs}
            and env.keys() <= READ_ANEW
        )
        process = Process(command, {**self.env, **env}, log, self.starter, usual=usual)
        self.processes.append(process)
        return process

    def run(self, *args: str, status: int = 0, timeout: float = 60, **env: str) -> str:
        """Run ``manage.py`` to its end, which must have this exit status; what it printed."""
        process = self.manage(*args, **env)
        assert process.wait(timeout=timeout) == status, process.output()
        return process.output()

    def state(self) -> str:
        """What the database and the broker hold, for the report of a test that failed."""
        lines = [
            f"{model.__name__}: {row}"
            for model in (Schedule, ScheduleRun, TaskResult)
            for row in model.objects.order_by("-pk").values()[:_ROWS]
        ]
        with self.valkey.client() as client:
            client.connection_pool.connection_kwargs["socket_timeout"] = 1.0
            keys = client.scan_iter(count=1000)
            lines += [f"Valkey: {key!r}" for key in itertools.islice(keys, _ROWS)]
        return "\n".join(lines)

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *exc: Any) -> None:
        for process in self.processes:
            process.kill_group()


def database_url(options: dict[str, Any]) -> str:
    """DATABASE_URL for the database of a Django connection, as it is now (the test database)."""
    name = str(options["NAME"])
    if options["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{name}"
    if options["ENGINE"].endswith("mysql"):
        unix_socket = quote(options["OPTIONS"]["unix_socket"], safe="")
        return f"mysql://{quote(options['USER'])}@localhost/{name}?unix_socket={unix_socket}"
    host = options["OPTIONS"].get("host") or options["HOST"]
    user = quote(options["USER"])
    if options["PASSWORD"]:
        user += f":{quote(options['PASSWORD'], safe='')}"
    if host.startswith("/"):
        return f"postgres://{user}@/{name}?host={quote(host, safe='')}"
    return f"postgres://{user}@{host}:{options['PORT'] or 5432}/{name}"
