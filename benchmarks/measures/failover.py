"""How soon work goes on when a replica has taken over from a master."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import redis

from ..bench import Bench, BenchmarkError, Workers, interpreter, start_workers, wait_until
from ..servers import Server, Standing, Valkey, standing_cluster, standing_pair
from ..systems import System
from ..work import read_stamps
from .base import Column, Figures, Measure, percentile

#: Failovers of each kind.
TIMES = 6
#: Seconds between two sends on a queue, and for which a failover may last.
PAUSE, LONGEST = 0.02, 60.0
#: Seconds for which work has to go on before the next failover.
CALM = 1.0

#: The servers of each system.
STANDING = {"jobsite-sentinels": standing_pair, "jobsite-cluster-replicas": standing_cluster}
#: Declared beside "bench", so that each node has one of them.
MORE = 8


class Recovery(NamedTuple):
    """What a failover has taken, in seconds."""

    #: From the election to the end of the first send that was accepted.
    send: float
    #: To the first start of any call on the queue, and of one that was sent after the election.
    start: float
    new: float
    #: The longest time without a start on any queue of another node, before and after.
    others: float


def run(system: System, bench: Bench) -> Figures:
    """Kill masters, then freeze masters, while calls are sent and run on queues of all nodes."""
    with STANDING[system.name](bench.folder) as standing:
        own = replace(bench, valkey=Valkey(standing.url, standing.servers[0].client))
        system.prepare(own)
        return _measured(system, own, standing)


def _measured(system: System, bench: Bench, standing: Standing) -> Figures:
    names = ["bench", *(f"bench-{n}" for n in range(1, MORE))]
    by_server = {id(standing.owner(name)): name for name in reversed(names)}
    queues = list(by_server.values())
    log, until = bench.folder / "sent", bench.folder / "sent-all"
    log.write_bytes(b"")
    until.unlink(missing_ok=True)
    env = {**system.environment(bench), "BENCH_QUEUES": str(MORE)}
    command = ["manage.py", "runworker", "--processes", "2", "--queues", ",".join(queues)]
    workers = start_workers(bench, interpreter(), [command], env)
    bench.stamps.write_bytes(b"")
    options = {"queues": queues, "pause": PAUSE, "log": str(log), "until": str(until)}
    found: dict[str, list[Recovery]] = {"killed": [], "frozen": []}
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(_send, system, bench, env, options)
        try:
            for n in range(TIMES):
                for kind, recoveries in found.items():
                    place = n % len(queues)
                    _await_calm(bench, standing, queues, workers)
                    recoveries.append(
                        _fail_over(kind, place, queues, bench, standing, workers, log)
                    )
                    print(kind, *(f"{one:.2f}" for one in recoveries[-1]), flush=True)
        finally:
            until.touch()
            workers.stop()
            sending.result()
    figures: Figures = {}
    for kind, recoveries in found.items():
        for figure in Recovery._fields:
            seconds = [getattr(one, figure) for one in recoveries]
            figures[f"{kind}_{figure}"] = percentile(seconds, 0.5)
            figures[f"{kind}_{figure}_most"] = max(seconds)
    return figures


def _send(system: System, bench: Bench, env: dict[str, str], options: dict[str, object]) -> None:
    from ..bench import agent

    agent(bench, interpreter(), system.app, "send_on", env, **options)


def _await_calm(bench: Bench, standing: Standing, queues: list[str], workers: Workers) -> None:
    def is_calm() -> bool:
        try:
            if not standing.whole():
                return False
        except redis.RedisError:
            return False
        since = time.time_ns() - CALM * 1e9
        return {m % 10 for m, at in read_stamps(bench.stamps) if at > since} == set(range(len(queues)))

    wait_until(is_calm, "all servers and work on all queues", LONGEST, workers, every=0.2)
    time.sleep(CALM)


def _fail_over(
    kind: str,
    place: int,
    queues: list[str],
    bench: Bench,
    standing: Standing,
    workers: Workers,
    log: Path,
) -> Recovery:
    master = standing.owner(queues[place])
    replicas = [server for server in standing.servers if server.role() == "slave"]
    began = time.time_ns()
    master.kill() if kind == "killed" else master.freeze()
    elected = _elected(replicas)
    found: dict[str, int] = {}

    def goes_on() -> bool:
        sent = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
        stamps = read_stamps(bench.stamps)
        mine = [(mark // 10, at) for mark, at in stamps if mark % 10 == place and at > elected]
        moments = {
            "send": [end for where, _, end in sent if where == place and end > elected],
            "start": [at for _, at in mine],
            "new": [at for sent_at, at in mine if sent_at > elected],
        }
        found.update({what: min(at) for what, at in moments.items() if at})
        return len(found) == len(moments)

    try:
        wait_until(goes_on, f"work to go on after a master was {kind}", LONGEST, workers)
    finally:
        standing.bring_back(master) if kind == "killed" else master.thaw()
    over = max(found.values())
    others = [
        at
        for mark, at in read_stamps(bench.stamps)
        if mark % 10 != place and began - CALM * 1e9 < at < over + CALM * 1e9
    ]
    pauses = []
    for other in {mark % 10 for mark, _ in read_stamps(bench.stamps)} - {place}:
        its = [at for mark, at in read_stamps(bench.stamps) if mark % 10 == other and began - CALM * 1e9 < at]
        edges = [at for at in its if at < over + CALM * 1e9]
        pauses += [later - one for one, later in zip(edges, [*edges[1:], over], strict=True)]
    since = {what: (at - elected) / 1e9 for what, at in found.items()}
    return Recovery(**since, others=max(pauses, default=0.0) / 1e9)


def _elected(replicas: list[Server]) -> int:
    """When one of these said that it is a master (nanoseconds)."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        if any(replica.role() == "master" for replica in replicas):
            return time.time_ns()
        time.sleep(0.005)
    raise BenchmarkError("No replica has taken over.")


MEASURE = Measure(
    name="failover",
    title="seconds from the election of a replica until work goes on",
    run=run,
    columns=tuple(
        Column(f"{kind}_{figure}{most}", f"{kind}: {title}{', most' if most else ''}", 2)
        for kind in ("killed", "frozen")
        for figure, title in (
            ("send", "send"),
            ("start", "start"),
            ("new", "of a new call"),
            ("others", "others pause"),
        )
        for most in ("", "_most")
    ),
    systems=("jobsite-sentinels", "jobsite-cluster-replicas"),
)
