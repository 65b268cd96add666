"""How soon work goes on when a replica has taken over from a master."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import redis

from ..bench import Bench, BenchmarkError, Workers, agent, interpreter, start_workers, wait_until
from ..servers import Server, Standing, Valkey, standing_cluster, standing_pair
from ..systems import System
from ..work import read_stamps
from .base import Column, Figures, Measure, percentile

#: What happens to masters, in turn, and how often.
KINDS, TIMES = ("killed", "frozen"), 6
#: Seconds between two sends on a queue; for which a failover may last; and for which work has to go
#: on before the next one.
PAUSE, LONGEST, CALM = 0.02, 60.0, 1.0
#: Queues that are declared, so that each node has one of them.
DECLARED = 9

#: The servers of each system.
STANDING = {"jobsite-sentinels": standing_pair, "jobsite-cluster-replicas": standing_cluster}


class Recovery(NamedTuple):
    """What a failover has taken, in seconds."""

    #: From the election to the end of the first send to the queue that was accepted.
    send: float
    #: From there to the first start of a call on it that was sent after the election.
    start: float
    #: The longest time without a start on any queue of another node; None if there is none.
    others: float | None


@dataclass
class Work:
    """Calls that are sent and run all the time, on a queue of each node."""

    queues: list[str]
    #: The file in which the sender writes down what was accepted.
    log: Path
    bench: Bench
    workers: Workers

    def starts(self, since: float, place: int) -> list[tuple[int, int]]:
        """Return when each call was sent and started that has started since; in nanoseconds.
        ``place``: of its queue."""
        stamps = read_stamps(self.bench.stamps)
        return [(mark // 10, at) for mark, at in stamps if mark % 10 == place and at > since]

    def accepted(self, since: float, place: int) -> list[int]:
        """Return when sends were accepted since."""
        lines = (map(int, line.split()) for line in self.log.read_text().splitlines())
        return [end for where, _, end in lines if where == place and end > since]

    def goes_on(self) -> bool:
        """Return whether calls of all queues have just started."""
        since = time.time_ns() - CALM * 1e9
        return all(self.starts(since, place) for place in range(len(self.queues)))


def run(system: System, bench: Bench) -> Figures:
    """Kill masters and freeze masters, while calls are sent and run on queues of all nodes."""
    with STANDING[system.name](bench.folder) as standing:
        own = replace(bench, valkey=Valkey(standing.url, standing.servers[0].client))
        system.prepare(own)
        return _measured(system, own, standing)


def _measured(system: System, bench: Bench, standing: Standing) -> Figures:
    names = ["bench", *(f"bench-{n}" for n in range(1, DECLARED))]
    queues = list({id(standing.owner(name)): name for name in names}.values())
    env = {**system.environment(bench), "BENCH_QUEUES": str(DECLARED)}
    command = ["manage.py", "runworker", "--processes", "2", "--queues", ",".join(queues)]
    log, until = bench.folder / "sent", bench.folder / "sent-all"
    for file in (log, bench.stamps):
        file.write_bytes(b"")
    options = {"queues": queues, "pause": PAUSE, "log": str(log), "until": str(until)}
    work = Work(queues, log, bench, start_workers(bench, interpreter(), [command], env))
    found: dict[str, list[Recovery]] = {kind: [] for kind in KINDS}
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(agent, bench, interpreter(), system.app, "send_on", env, **options)
        try:
            for n in range(TIMES * len(KINDS)):
                kind = KINDS[n % len(KINDS)]
                found[kind].append(_fail_over(kind, n // len(KINDS) % len(queues), work, standing))
                print(f"{kind}: {found[kind][-1]}", file=sys.stderr, flush=True)
        finally:
            until.touch()
            work.workers.stop()
            sending.result()
            until.unlink()
    figures: Figures = {}
    for kind, recoveries in found.items():
        starts = [one.start for one in recoveries]
        figures |= {
            f"{kind}_send": percentile([one.send for one in recoveries], 0.5),
            f"{kind}_start": percentile(starts, 0.5),
            f"{kind}_start_most": max(starts),
            f"{kind}_others": max((one.others for one in recoveries if one.others), default=None),
        }
    return figures


def _fail_over(kind: str, place: int, work: Work, standing: Standing) -> Recovery:
    def is_calm() -> bool:
        try:
            return standing.whole() and work.goes_on()
        except redis.RedisError:
            return False

    wait_until(is_calm, "all servers and all queues", LONGEST, work.workers, every=0.2)
    time.sleep(CALM)
    master = standing.owner(work.queues[place])
    replicas = [server for server in standing.servers if server.role() == "slave"]
    began = time.time_ns()
    if kind == "killed":
        master.kill()
    else:
        master.freeze()
    try:
        elected = _elected(replicas)

        def new_starts() -> list[int]:
            return [at for sent, at in work.starts(elected, place) if sent > elected]

        wait_until(
            lambda: bool(new_starts() and work.accepted(elected, place)),
            f"work to go on after a master was {kind}",
            LONGEST,
            work.workers,
        )
    finally:
        if kind == "killed":
            standing.bring_back(master)
        else:
            master.thaw()
    send, start = min(work.accepted(elected, place)), min(new_starts())
    pauses = []
    for other in set(range(len(work.queues))) - {place}:
        starts = sorted(at for _, at in work.starts(began - CALM * 1e9, other) if at < start)
        pauses += [later - earlier for earlier, later in pairwise([*starts, start])]
    longest = max(pauses) / 1e9 if pauses else None
    return Recovery((send - elected) / 1e9, (start - elected) / 1e9, longest)


def _elected(replicas: list[Server]) -> int:
    """Return when one of these said that it is a master, in nanoseconds."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        if any(replica.role() == "master" for replica in replicas):
            return time.time_ns()
        time.sleep(0.005)
    raise BenchmarkError("No replica has taken over.")


MEASURE = Measure(
    name="failover",
    title=f"Seconds from the election of a replica, in {TIMES} failovers of each kind",
    run=run,
    columns=tuple(
        Column(f"{kind}_{figure}", f"{kind}: {title}", 2)
        for kind in KINDS
        for figure, title in (
            ("send", "send"),
            ("start", "start"),
            ("start_most", "most"),
            ("others", "others"),
        )
    ),
    systems=("jobsite-sentinels", "jobsite-cluster-replicas"),
)
