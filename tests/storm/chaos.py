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
from pathlib import Path
from typing import NamedTuple

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Max

from jobs import broker, conf
from jobs.exceptions import BrokerUnavailable
from jobs.worker import forkserver
from tests.project import Process, Project
from tests.services import Postgres, SentinelTrio, wait_for
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
_LOOK = 0.03


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
        self._valkey = project.valkey
        self._server = server
        self._senders = senders
        self._options = worker_options
        self.workers = [self._worker(options) for options in worker_options]
        self._rng = rng
        self.kills: Counter[str] = Counter()
        #: Kind of kill → seconds.
        self.recoveries: dict[str, list[float]] = defaultdict(list)
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
        wait_for(self.sent, 60, what="the senders to end")
        for worker in self.workers:
            # One that has just been started could not be told to stop yet, only be killed.
            worker.wait_for_output(" ready, queues", 60)

    def sent(self) -> bool:
        """Whether everything is sent; starts killed senders again."""
        over = [sender.over() for sender in self._senders]
        return all(over)

    def _plan(self, kills: int) -> list[str]:
        """Each kind by its share, and each at least once while there are kills enough."""
        pattern = [kind for kind, share in SHARES.items() for _ in range(share)]
        self._rng.shuffle(pattern)
        plan = (list(SHARES) + pattern * (kills // len(pattern) + 1))[:kills]
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
        if isinstance(self._valkey, SentinelTrio):
            # Sentinels elect nobody before they have seen the replica of the last time.
            wait_for(self._valkey.knows_all, what="the Sentinels to know the replica")
            killed = self._valkey.kill_master()
            self._expect("failover", _work_goes_on())
            self._watch_for(self._rng.uniform(0, 1.5))
            self._valkey.bring_back(killed)
            return
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
