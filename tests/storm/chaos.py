"""Kills at random, one kind after the other, and how long each recovery takes."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Max

from jobs import broker, conf
from jobs.broker import sharding
from jobs.exceptions import BrokerUnavailable
from jobs.worker import forkserver
from tests.project import Process, Project
from tests.services import Postgres, Valkey, ValkeyCluster, role, wait_for
from tests.storm import failovers
from tests.storm.failovers import Failover, Servers
from tests.storm.models import Effect
from tests.storm.sender import OVER, PROMISED
from tests.workers import alive, children, processes_below

#: Of eleven kills, so many are of this kind.
SHARES = {
    "child": 4,
    "fork_server": 1,
    "valkey": 2,
    "supervisor": 2,
    "postgres": 1,
    "sender": 1,
}
#: What happens to servers of which one can stand in for another, instead of a kill of Valkey.
SENTINEL = {"master": 2, "paused_master": 1}
CLUSTER = {**SENTINEL, "resharding": 2}
#: Seconds for which a master is paused at most. Others take over after one or two.
_PAUSE = 4.0
#: Seconds in which a replica is elected at the latest: after two failovers in a row, Sentinels wait
#: for twice their failover-timeout, here for ten.
_ELECTION = 60.0
_LOOK = 0.03

T = TypeVar("T")


class Watch(NamedTuple):
    """A recovery that is waited for."""

    kind: str
    since: float
    over: Callable[[], bool]


class Sender:
    """A sender, and what it has still to send when it is started again."""

    def __init__(self, project: Project, log: Path, count: int, rate: float, seed: str) -> None:
        self._project = project
        self.log = log
        self._left = count
        self._rate = rate
        self._seed = seed
        self._starts = 0
        self.process = self._start()

    def _start(self) -> Process:
        self._starts += 1
        steps = self.log.read_text().splitlines() if self.log.exists() else []
        left = self._left - sum(s.count(":") for s in steps if s.startswith(PROMISED))
        args = [str(self.log), str(left), str(self._rate), f"{self._seed}/{self._starts}"]
        return self._project.start("-m", "tests.storm.sender", *args)

    def over(self) -> bool:
        """Whether everything is sent; one that was killed is started again."""
        code = self.process.poll()
        if code == 0:
            return True
        if code is not None:
            assert code == -signal.SIGKILL, self.process.output()
            self.process = self._start()
        return False


class Chaos:
    def __init__(
        self,
        project: Project,
        server: Postgres | None,
        senders: list[Sender],
        worker_options: list[list[str]],
        rng: random.Random,
    ) -> None:
        self._project = project
        #: One server, or several that stand in for each other; and what happens to them.
        self._valkey, self._servers = _kinds(project.valkey)
        self._shares = _shares(self._servers)
        self._server = server
        self._senders = senders
        self._options = worker_options
        self.workers = [self._worker(options) for options in worker_options]
        self._rng = rng
        self.kills: Counter[str] = Counter()
        #: Kind of kill → seconds.
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self.failovers: list[Failover] = []
        self._watched: list[Watch] = []

    def _worker(self, options: list[str]) -> Process:
        return self._project.manage("runworker", *options)

    def run(self, kills: int, seconds: float) -> None:
        """Kill so often, spread over so many seconds, and wait until everything has recovered and
        everything is sent."""
        for kind in self._plan(kills):
            self._watch_for(seconds / kills * self._rng.uniform(0.5, 1.5))
            self.kills[kind] += 1
            getattr(self, f"_kill_{kind}")()
        ends = time.monotonic() + 60
        while self._watched:
            assert time.monotonic() < ends, f"not recovered: {[w.kind for w in self._watched]}"
            self._watch_for(0.1)
        for sender in self._senders:
            sender.log.with_name(OVER).touch()
        self._await_senders()
        for worker in self.workers:
            # One that has just been started could not be told to stop yet, only be killed.
            worker.wait_for_output(" ready, queues", 60)

    def _await_senders(self) -> None:
        """However long they take on a busy machine, as long as they send."""
        written, ends = -1, 0.0
        while not self.sent():
            before, written = written, sum(sender.log.stat().st_size for sender in self._senders)
            if written != before:
                ends = time.monotonic() + 60
            assert time.monotonic() < ends, "the senders send nothing, and don't end"
            time.sleep(_LOOK)

    def sent(self) -> bool:
        """Whether everything is sent; starts killed senders again."""
        over = [sender.over() for sender in self._senders]
        return all(over)

    def _plan(self, kills: int) -> list[str]:
        """Each kind by its share, and each at least once while there are kills enough."""
        pattern = [kind for kind, share in self._shares.items() for _ in range(share)]
        self._rng.shuffle(pattern)
        plan = (list(self._shares) + pattern * (kills // len(pattern) + 1))[:kills]
        self._rng.shuffle(plan)
        return ["child" if self._server is None and k == "postgres" else k for k in plan]

    # ------------------------------------------------------------------ killing

    def _kill_child(self) -> None:
        found = [(worker, pid) for worker in self.workers for pid in children(worker)]
        claiming = {pid: name for worker, pid in found if (name := _consumer(worker, pid))}
        if not claiming:
            return
        pid = self._rng.choice(sorted(claiming))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._expect("child", _forgotten({claiming[pid]}))

    def _kill_fork_server(self) -> None:
        worker = self._rng.choice(self.workers)
        for pid, name in processes_below(worker.pid):
            if name == forkserver.NAME:
                os.kill(pid, signal.SIGKILL)

    def _kill_supervisor(self) -> None:
        n = self._rng.randrange(len(self.workers))
        worker = self.workers[n]
        pids = children(worker)
        names = {name for pid in pids if (name := _consumer(worker, pid))}
        worker.kill()
        worker.wait()
        self._expect("supervisor", _forgotten(names))
        wait_for(lambda: not any(alive(pid) for pid in pids), what="orphans to end")
        self.workers[n] = self._worker(self._options[n])

    def _kill_sender(self) -> None:
        self._rng.choice(self._senders).process.kill()

    def _kill_valkey(self) -> None:
        assert self._valkey is not None
        self._valkey.kill()
        self._watch_for(self._rng.uniform(0, 1.5))
        self._valkey.start()
        self._expect("valkey", _work_goes_on())

    def _kill_postgres(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._watch_for(self._rng.uniform(0, 1.5))
        self._server.start()
        self._expect("postgres", _work_goes_on())

    # ------------------------------------------------------------------ failing over

    def _kill_master(self) -> None:
        """A replica takes over, and what was killed comes back as its replica."""
        servers, master, replicas = self._chosen_master()
        queues = failovers.queues_of(servers, master)
        began = time.time()
        master.kill()
        over = time.time()
        elected = self._election(replicas, _ELECTION)
        assert elected, "no replica has taken over"
        self._note(Failover(began, elected, over, queues))
        self._watch_for(self._rng.uniform(0, 1.5))
        servers.bring_back(master)

    def _kill_paused_master(self) -> None:
        """Connected, but answering nothing: a replica takes over if that lasts, and the old master
        finds out when it goes on."""
        servers, master, replicas = self._chosen_master()
        queues = failovers.queues_of(servers, master)
        began = time.time()
        pause = self._rng.uniform(0.2, _PAUSE)
        with master.frozen():
            elected = self._election(replicas, pause)
            self._watch_for(began + pause - time.time())
        # Sentinels that have begun to vote don't stop when the master answers again.
        elected = elected or self._election(replicas, 2.0)
        if elected:
            # On a busy machine, another failover may have made it the master again.
            self._meanwhile(lambda: wait_for(servers.whole, what="one of the two masters to yield"))
            self._note(Failover(began, elected, time.time(), queues))

    def _kill_resharding(self) -> None:
        """A slot with keys of a queue moves to another node."""
        cluster = self._servers
        assert isinstance(cluster, ValkeyCluster)
        self._meanwhile(lambda: wait_for(cluster.whole, what="the Cluster to be whole"))
        shards = [
            sharding.shard(name, number)
            for name, queue in conf.get().queues.items()
            for number in range(queue.shards)
        ]
        key = failovers.key_of(self._rng.choice(shards))
        masters = [node for node in cluster.live if role(node) == "master"]
        to = self._rng.choice([node for node in masters if node is not cluster.owner(key)])
        self._meanwhile(lambda: cluster.move(key, to))

    def _chosen_master(self) -> tuple[Servers, Valkey, list[Valkey]]:
        """A master that has a queue, and the replicas that may take over."""
        servers = self._servers
        assert servers is not None
        self._meanwhile(lambda: wait_for(servers.whole, what="the servers to be whole"))
        declared = sorted(n for n, queue in conf.get().queues.items() if queue.shards == 1)
        master = servers.owner(failovers.key_of(self._rng.choice(declared)))
        return servers, master, failovers.replicas(servers)

    def _election(self, replicas: list[Valkey], seconds: float) -> float:
        return self._meanwhile(lambda: failovers.wait_for_election(replicas, seconds))

    def _note(self, failover: Failover) -> None:
        self.failovers.append(failover)
        self._expect("failover", lambda: failovers.first_starts(failover)[1] is not None)

    def _meanwhile(self, function: Callable[[], T]) -> T:
        """Go on watching until this has been done."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(function)
            while not done.done():
                self._watch_for(_LOOK)
            return done.result()

    # ------------------------------------------------------------------ recovering

    def _expect(self, kind: str, over: Callable[[], bool]) -> None:
        self._watched.append(Watch(kind, time.monotonic(), over))

    def _watch_for(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.sent()
            for worker in self.workers:
                assert worker.poll() is None, worker.output()
            for watch in list(self._watched):
                if _is_over(watch):
                    self._watched.remove(watch)
                    self.recoveries[watch.kind].append(time.monotonic() - watch.since)
            time.sleep(_LOOK)


def _kinds(servers: Valkey | Servers) -> tuple[Valkey | None, Servers | None]:
    return (servers, None) if isinstance(servers, Valkey) else (None, servers)


def _shares(servers: Servers | None) -> dict[str, int]:
    if servers is None:
        return SHARES
    more = CLUSTER if isinstance(servers, ValkeyCluster) else SENTINEL
    return {kind: share for kind, share in SHARES.items() if kind != "valkey"} | more


def _is_over(watch: Watch) -> bool:
    try:
        return watch.over()
    except DatabaseError:
        connection.close()
    except BrokerUnavailable:
        pass
    return False


def _consumer(worker: Process, pid: int) -> str:
    """The name under which a child claims; empty when it isn't one (any more), or while the broker
    is away."""
    number = dict(processes_below(worker.pid)).get(pid, "").removeprefix(forkserver.CHILD)
    try:
        known = {c.name for queue in conf.get().queues for c in broker.get().consumers(queue)}
    except BrokerUnavailable:
        return ""
    # Its name ends with how many children the worker had started before it, and a random part.
    found = [name for name in known if re.match(rf"worker-{worker.pid}@.*/{number}\.\d+-", name)]
    return max(found, key=lambda name: int(name.rpartition(".")[2].partition("-")[0]), default="")


def _forgotten(names: set[str]) -> Callable[[], bool]:
    """What these held is back in the queues."""

    def over() -> bool:
        known = {c.name for queue in conf.get().queues for c in broker.get().consumers(queue)}
        return not known & names

    return over


def _work_goes_on() -> Callable[[], bool]:
    """A task has left its effect since."""
    before: list[int] = []

    def over() -> bool:
        newest = Effect.objects.aggregate(newest=Max("id"))["newest"] or 0
        before.append(newest)
        return newest > before[0]

    return over


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
