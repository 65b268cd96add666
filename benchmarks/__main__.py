"""``python -m benchmarks MEASURE``: measure this program and, with ``--peers``, the others."""

import argparse
import json
import math
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from . import report
from .bench import Bench, BenchmarkError
from .measures import ALL as MEASURES
from .measures import Measure
from .measures.base import Figures
from .servers import cluster, postgres, temporary_folder, valkey
from .systems import ALL as SYSTEMS
from .systems import System

DATABASES = ("none", "sqlite", "postgres")
#: What ``--tasks`` is compared with: our backlog when nothing is said.
USUAL_TASKS = 150_000


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this program and its peers on servers of their own, in one run.",
        epilog=f"Systems: {', '.join(SYSTEMS)}. benchmarks/README.md explains the figures.",
    )
    parser.add_argument("measure", choices=MEASURES, help="what to measure")
    parser.add_argument("--peers", action="store_true", help="measure the peers as well")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are shown (3)")
    parser.add_argument(
        "--tasks",
        type=int,
        default=USUAL_TASKS,
        help=f"our backlog ({USUAL_TASKS}); those of the others are cut or grown alike",
    )
    parser.add_argument("--large", action="store_true", help="growth: the largest sizes as well")
    parser.add_argument(
        "--subject",
        action="append",
        default=[],
        metavar="WORD",
        help="growth: only what has this word in its name, such as chain (may be given more often)",
    )
    parser.add_argument(
        "--json", type=Path, help="write everything to this file as well, after each measurement"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="with --json: measure only what the file doesn't hold yet",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin nothing after so many minutes; --resume goes on from there",
    )
    parser.add_argument("--only", default="", help="systems to measure, by name, with commas")
    parser.add_argument(
        "--database",
        choices=DATABASES,
        action="append",
        help="keep to the variants with results there (may be given more than once)",
    )
    options = parser.parse_args()
    if options.rounds < 1 or options.tasks < 1:
        parser.error("--rounds and --tasks must be at least 1")
    if options.resume and not options.json:
        parser.error("--resume needs the file of --json")
    unknown = set(filter(None, options.only.split(","))) - set(SYSTEMS)
    if unknown:
        parser.error(f"no such system: {', '.join(unknown)}; there are: {', '.join(SYSTEMS)}")
    return options


def chosen(options: argparse.Namespace, measure: Measure) -> list[System]:
    """Return the systems to measure, this program's first."""
    if options.only:
        return [SYSTEMS[name] for name in options.only.split(",") if name]
    systems = [SYSTEMS[name] for name in measure.systems]
    if not options.peers:
        systems = [system for system in systems if not system.peer]
    if options.database:
        wanted = {"" if name == "none" else name for name in options.database}
        systems = [system for system in systems if _fits(system, wanted)]
    return systems


def _fits(system: System, wanted: set[str]) -> bool:
    """Whether it keeps its results in a wanted place; peers in Redis are nobody's variants."""
    return system.results in wanted or system.results == "redis"


def measured(
    measure: Measure,
    systems: list[System],
    bench: Bench,
    options: argparse.Namespace,
) -> tuple[dict[str, list[Figures]], dict[str, Any]]:
    """Run every system once, then every system again: the machine's moods fall on all alike.

    Returns the figures, those that the file had before included, and where they are from.
    """
    figures, where = before(measure, options)
    where |= report.machine(bench, systems, where.get("packages", {}))
    ends = time.monotonic() + options.minutes * 60
    for number in range(1, options.rounds + 1):
        for system in systems:
            if len(figures.get(system.name, ())) >= number:
                continue
            if time.monotonic() > ends:
                print("The time is over; --resume goes on from here.", file=sys.stderr)
                return figures, where
            print(f"round {number}/{options.rounds}: {system.name} …", file=sys.stderr, flush=True)
            try:
                own = bench.on_cluster() if system.cluster else bench
                found = measure.run(system, own)
            except BenchmarkError as error:
                print(f"{system.name} could not be measured: {error}", file=sys.stderr)
                continue
            figures.setdefault(system.name, []).append(found)
            if options.json:
                report.write(options.json, measure, figures, where)
    return figures, where


def before(
    measure: Measure, options: argparse.Namespace
) -> tuple[dict[str, list[Figures]], dict[str, Any]]:
    """Return the rounds that ``--resume`` goes on from, and where they were measured."""
    if not options.resume or not options.json.exists():
        return {}, {}
    found = json.loads(options.json.read_text())
    if found["measure"] != measure.name:
        sys.exit(f"{options.json} holds another measure: {found['measure']}.")
    return found["rounds"], found["machine"]


def main() -> int:
    """Measure, print the table, write the JSON; return 1 when a system could not be measured."""
    options = arguments()
    measure = MEASURES[options.measure]
    systems = chosen(options, measure)
    # Ended politely or by Ctrl-C, the servers and workers end with us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        server = stack.enter_context(valkey(folder))
        database = None
        if any(system.results == "postgres" for system in systems):
            database = stack.enter_context(postgres(folder))
        many = None
        if any(system.cluster for system in systems):
            many = stack.enter_context(cluster(folder))
        bench = Bench(
            folder,
            server,
            database,
            many,
            scale=options.tasks / USUAL_TASKS,
            large=options.large,
            subjects=tuple(options.subject),
        )
        figures, where = measured(measure, systems, bench, options)
    show(measure, {name: found for name, found in figures.items() if found}, where, options)
    missing = [s.name for s in systems if len(figures.get(s.name, ())) < options.rounds]
    if missing:
        print(f"\nNot measured {options.rounds} times: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def show(
    measure: Measure,
    figures: dict[str, list[Figures]],
    where: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """Print the table."""
    print(f"\n{measure.title}; medians of {options.rounds} rounds")
    about = {key: value for key, value in where.items() if key != "packages"}
    print("; ".join(f"{key} {value}" for key, value in about.items() if value))
    print(", ".join(f"{name} {number}" for name, number in where["packages"].items()), end="\n\n")
    print((report.curves if measure.curves else report.table)(measure, figures))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Ended; the servers and workers that were started are ended as well.")
