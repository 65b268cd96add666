"""The databases of a storm, and the triggers that note each end."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests import services

_ENDS = "('SUCCESS', 'FAILURE', 'REVOKED')"

#: Only a statement that writes the state counts: publishing writes other columns of ended rows.
_SQLITE = [
    f"CREATE TRIGGER storm_{verb} AFTER {event} ON jobs_taskresult WHEN NEW.state IN {_ENDS} "
    "BEGIN INSERT INTO storm_end (task) VALUES (NEW.id); END"
    for verb, event in (("inserted", "INSERT"), ("updated", "UPDATE OF state"))
]
_POSTGRESQL = [
    "CREATE FUNCTION storm_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO storm_end (task) VALUES (NEW.id); RETURN NULL; END $$",
    "CREATE TRIGGER storm_ended AFTER INSERT OR UPDATE OF state ON jobs_taskresult FOR EACH ROW "
    f"WHEN (NEW.state IN {_ENDS}) EXECUTE FUNCTION storm_note()",
]


def note_ends() -> None:
    """Have the database write a row of `End` for each end that is recorded."""
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in _SQLITE if connection.vendor == "sqlite" else _POSTGRESQL:
            cursor.execute(statement)


class Postgres:
    """A PostgreSQL server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        """``folder``: one that other users may be let into; see `tests.services.postgres`."""
        self._folder = folder
        self._binaries, self._as_user = services._postgres_binaries(folder)
        self._server: subprocess.Popen[bytes] | None = None
        initdb = [self._binaries / "initdb", "-D", folder / "data", "-U", "postgres"]
        initdb += ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **self._as_user)

    @property
    def url(self) -> str:
        return f"postgres://postgres@/postgres?host={quote(str(self._folder), safe='')}"

    def start(self) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self._folder,
            # Processes are killed here, not machines: what was written stays written.
            "fsync": "off",
            "max_connections": 200,
        }
        command = [self._binaries / "postgres", "-D", self._folder / "data"]
        command += [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self._folder / "log").open("a") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, **self._as_user)
        server = self._server
        services.wait_for(
            lambda: services._postgres_answers(server, self._folder),
            services.START_SECONDS,
            what="PostgreSQL",
        )

    def kill(self) -> None:
        """End it without a goodbye, as a crash does: it recovers from its log at the next start."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(timeout=30)
            self._server = None


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="storm-pg-", ignore_cleanup_errors=True) as name:
        server = Postgres(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.kill()
