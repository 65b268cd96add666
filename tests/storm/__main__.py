from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests import services
from tests.services import Postgres, SentinelTrio, Valkey, ValkeyCluster, own_postgres
from tests.storm import __doc__ as purpose
from tests.storm.database import note_ends

if TYPE_CHECKING:
    from tests.storm.failovers import Failover

#: At the end less and less must be left; without a change for so many seconds, it is stuck.
SETTLE = 90.0


def main() -> int:
    asked = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_database(asked.database, folder))
        valkey = stack.enter_context(_broker(asked, folder / "valkey"))
        broken = _storm(asked, folder, server, valkey)
    if broken:
        sys.stdout.write(f"The logs are in {folder}.\n")
    else:
        shutil.rmtree(folder)
    return int(broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=purpose)
    add = parser.add_argument
    add("--tasks", type=int, default=20_000, help="Promised to run. Default: %(default)s.")
    add("--kills", type=int, default=45, help="Default: %(default)s.")
    add("--seconds", type=float, default=180.0, help="Time of the kills. Default: %(default)s.")
    add("--senders", type=int, default=3, help="Processes that send. Default: %(default)s.")
    add("--processes", type=int, default=2, help="Of each of two workers. Default: %(default)s.")
    add("--seed", type=int, default=int(time.time()), help="Of all that is chosen at random.")
    add("--users", action="store_true", help="With tasks that leave things behind or end oddly.")
    several = parser.add_mutually_exclusive_group()
    several.add_argument(
        "--sentinel",
        action="store_true",
        help="On Sentinels with a master and a replica: kill and pause the master.",
    )
    several.add_argument(
        "--cluster",
        action="store_true",
        help="On a Cluster of three masters with a replica each: the same, and move slots.",
    )
    add(
        "--replicas",
        type=int,
        choices=[0, 1],
        default=1,
        help="BROKER_WAIT_REPLICAS there. With 0, calls that were sent outside a transaction just "
        "before a failover may be lost, and are counted apart. Default: %(default)s.",
    )
    add("--database", choices=["postgres", "sqlite"], default="postgres")
    return parser.parse_args()


def _broker(
    asked: argparse.Namespace, folder: Path
) -> contextlib.AbstractContextManager[Valkey | SentinelTrio | ValkeyCluster]:
    if asked.cluster:
        return services.valkey_cluster(folder)
    return services.sentinels(folder) if asked.sentinel else services.valkey(folder)


@contextlib.contextmanager
def _database(kind: str, folder: Path) -> Iterator[Postgres | None]:
    """Sets DATABASE_URL."""
    if kind == "sqlite":
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'db.sqlite3'}"
        yield None
    else:
        with own_postgres() as server:
            os.environ["DATABASE_URL"] = server.url
            yield server


def _storm(
    asked: argparse.Namespace,
    folder: Path,
    server: Postgres | None,
    valkey: Valkey | SentinelTrio | ValkeyCluster,
) -> bool:
    """Whether any promise was broken."""
    import django
    from django.core.management import call_command

    os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.storm.settings", "REDIS_URL": valkey.url}
    os.environ["ENV_FILE"] = ""
    os.environ["STORM_USERS"] = "1" if asked.users else ""
    os.environ["STORM_SPREAD"] = "1" if asked.cluster else ""
    replicas = asked.replicas if asked.sentinel or asked.cluster else 0
    os.environ["STORM_REPLICAS"] = str(replicas)
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    note_ends()

    # Only now can modules be imported that import models.
    from tests.project import Project
    from tests.storm import audit
    from tests.storm.chaos import Chaos, Sender, say

    say(f"Storm {asked.seed}: {asked.tasks} tasks, {asked.kills} kills, on {asked.database}.")
    began = time.monotonic()
    with Project(valkey, folder, settings="tests.storm.settings") as project:
        rng = random.Random(asked.seed)
        rate = asked.tasks / asked.senders / asked.seconds
        senders = [
            Sender(
                project,
                folder / f"sender-{n}.txt",
                asked.tasks // asked.senders,
                rate,
                f"{asked.seed}/{n}",
            )
            for n in range(asked.senders)
        ]
        processes = ["--processes", str(asked.processes)]
        chaos = Chaos(project, server, senders, [processes, [*processes, "--threads", "3"]], rng)
        chaos.run(asked.kills, asked.seconds)
        say(f"Everything is sent after {time.monotonic() - began:.0f} s; settling …")
        unsettled = not _settle(audit.left)
        codes = [worker.stop(timeout=40) for worker in chaos.workers]
        known = audit.noted([sender.log for sender in senders])
        # With a replica that has them, calls outside a transaction are promised to run as well.
        kept = known if replicas else audit.without_replica(known, chaos.failovers)
        broken = audit.violations(kept)
        _print_counts(known, chaos.kills, audit.ran_again())
        if chaos.failovers:
            lost = len(known.promised) - len(kept.promised)
            say(f"{'lost, as no replica had them':<36}{lost:>8}")
        _print_recoveries(chaos.recoveries | _after_elections(chaos.failovers))
        say(f"\nTook {time.monotonic() - began:.0f} s.")
    return _print_verdict(broken, unsettled=unsettled, codes=codes)


def _settle(left: Callable[[], int | None]) -> bool:
    """Wait until nothing is left; False if there is no progress for `SETTLE` seconds."""
    least, until = None, time.monotonic() + SETTLE
    while (now_left := left()) != 0:
        if now_left is not None and (least is None or now_left < least):
            least, until = now_left, time.monotonic() + SETTLE
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def _print_counts(known: object, kills: Counter[str], again: int) -> None:
    from tests.storm.audit import Noted
    from tests.storm.chaos import say

    assert isinstance(known, Noted)
    say()
    say(f"{'promised to run':<36}{len(known.promised):>8}")
    say(f"{'rolled back':<36}{len(known.rolled_back):>8}")
    say(f"{'ran more than once (may be)':<36}{again:>8}")
    for kind, count in sorted(kills.items()):
        say(f"{'killed: ' + kind:<36}{count:>8}")


def _after_elections(failovers: Sequence[Failover]) -> dict[str, list[float]]:
    from tests.storm.failovers import first_starts

    starts = [first_starts(failover) for failover in failovers]
    found = {
        "election to the first start": [any_ for any_, _ in starts if any_ is not None],
        "election to that of a new call": [new for _, new in starts if new is not None],
    }
    return {kind: seconds for kind, seconds in found.items() if seconds}


def _print_recoveries(recoveries: dict[str, list[float]]) -> None:
    from tests.storm.chaos import say

    say(f"\n{'seconds until recovered':<36}{'p50':>8}{'p99':>8}{'most':>8}{'times':>8}")
    for kind, times in sorted(recoveries.items()):
        times = sorted(times)
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        say(f"{kind:<36}{p50:>8.2f}{p99:>8.2f}{times[-1]:>8.2f}{len(times):>8}")


def _print_verdict(broken: dict[str, list[str]], *, unsettled: bool, codes: list[int]) -> bool:
    from tests.storm.chaos import say

    say()
    for promise, tasks in broken.items():
        say(f"{promise:<36}{len(tasks):>8}  {' '.join(tasks[:3])}")
    if unsettled:
        say(f"Not settled: nothing went on for {SETTLE:.0f} s.")
    if any(codes):
        say(f"Workers ended with the exit codes {codes}.")
    failed = unsettled or any(codes) or any(broken.values())
    say("BROKEN" if failed else "All promises were kept.")
    return failed


if __name__ == "__main__":
    sys.exit(main())
