"""``python -m benchmarks.page``: the figures of docs/benchmarks.md, from what was measured.

Reads the files of ``--json`` that lie in ``benchmarks/results`` (or those that are named, which it
puts there), writes the charts in docs/images, and fills what stands between the markers

    <!-- figures: NAME -->
    <!-- end of figures -->

of the page, so that no figure there is typed by hand. NAME is the name of a file without ``.json``,
perhaps with one of its tables behind a slash (`TABLES`).
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chart import Bar, Chart
from .measures import ALL as MEASURES
from .measures import Measure
from .measures.base import Figures
from .report import FASTEST, LIKEWISE, by_size, ratios
from .systems import ALL as SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results")
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
NOTHING = "–"
#: What a system is called: with its version, and where it keeps results if it does.
LABELS = {
    "jobsite": "Jobsite",
    "jobsite-sqlite": "Jobsite, SQLite",
    "jobsite-postgres": "Jobsite, PostgreSQL",
    "jobsite-cluster": "Jobsite, Redis Cluster",
    "jobsite-cluster-shards": "Jobsite, Redis Cluster, 8 shards",
    "jobsite-cluster-replicas": "Jobsite, Redis Cluster with replicas",
    "jobsite-sentinels": "Jobsite, Redis with Sentinels",
    "jobsite-shards": "Jobsite, 8 shards",
    "jobsite-sqlite-shards": "Jobsite, SQLite, 8 shards",
    "jobsite-admin": "forked",
    "jobsite-admin-fresh": "fresh (PRELOAD off)",
    "beat-postgres": "Jobsite, PostgreSQL",
    "beat-sqlite": "Jobsite, SQLite",
    "django-celery-beat": "django-celery-beat {}, PostgreSQL",
    "redbeat": "RedBeat {}, Redis",
    "loop": "bare loop",
    "loop-sqlite": "bare loop, SQLite",
    "loop-postgres": "bare loop, PostgreSQL",
    "redis-py pipeline": "redis-py alone",
    "celery": "Celery {}, prefork",
    "celery-redis": "Celery {}, prefork, Redis",
    "celery-sqlite": "Celery {}, prefork, SQLite",
    "celery-postgres": "Celery {}, prefork, PostgreSQL",
    "celery-postgres-closing": "Celery {}, prefork, PostgreSQL, default",
    "celery-threads": "Celery {}, threads",
    "celery-threads-redis": "Celery {}, threads, Redis",
    "celery-threads-sqlite": "Celery {}, threads, SQLite",
    "celery-threads-postgres": "Celery {}, threads, PostgreSQL",
    "dramatiq": "Dramatiq {}",
    "dramatiq-redis": "Dramatiq {}, Redis",
    "huey": "huey {}",
    "huey-redis": "huey {}, Redis",
    "rq": "RQ {}",
    "rq-redis": "RQ {}, Redis",
    "taskiq": "taskiq {}",
    "taskiq-redis": "taskiq {}, Redis",
    "arq": "arq {}",
    "arq-redis": "arq {}, Redis",
    "saq": "SAQ {}",
    "saq-redis": "SAQ {}, Redis",
    "streaq": "streaQ {}",
    "streaq-redis": "streaQ {}, Redis",
    "procrastinate": "Procrastinate {}, PostgreSQL",
    "django-q2": "django-q2 {}, PostgreSQL",
    "django-tasks-db": "django-tasks-db {}, PostgreSQL",
}


def label(name: str, packages: dict[str, str]) -> str:
    """Return what a system is called on the page, such as ``Celery 5.7.0, threads, Redis``."""
    return LABELS[name].format(packages.get(SYSTEMS[name].package, "")).replace(" ,", ",").strip()


@dataclass(frozen=True)
class Drawing:
    """A chart of one column, which stands above the table."""

    file: str
    column: str
    title: str
    subtitle: str
    #: Whether a small value is a good one, and stands first.
    least_first: bool = False


@dataclass(frozen=True)
class Table:
    """Some systems and columns of a measure, the best first if ``by`` names a column."""

    columns: tuple[str, ...]
    #: Of a measure's ratios: the column, and with whom it is compared.
    shares: tuple[tuple[str, str], ...] = ()
    by: str = ""
    #: "": all systems; "none": those without results; "kept": those with.
    which: str = ""
    drawings: tuple["Drawing", ...] = ()


THROUGHPUT = ("rate", "cpu", "commands", "fill_rate")
DRAIN = "two worker processes drain a backlog of no-op tasks"
#: "file" or "file/table" → what is shown of it; other files are shown whole.
TABLES = {
    "throughput/without": Table(
        THROUGHPUT,
        (("rate", FASTEST), ("rate", "celery")),
        by="rate",
        which="none",
        drawings=(
            Drawing("benchmark-throughput.svg", "rate", "Tasks a second without results", DRAIN),
        ),
    ),
    "throughput/kept": Table(
        (*THROUGHPUT, "kept"),
        (("rate", FASTEST), ("rate", LIKEWISE)),
        by="rate",
        which="kept",
        drawings=(
            Drawing("benchmark-recorded.svg", "rate", "Tasks a second, every result kept", DRAIN),
            Drawing("benchmark-cpu.svg", "cpu", "CPU µs a task, every result kept", DRAIN, True),
        ),
    ),
    "latency": Table(
        ("start_p50", "start_p99", "trip_p50", "trip_p99", "late_p50", "late_p99"),
        by="-start_p50",
        drawings=(
            Drawing(
                "benchmark-latency.svg",
                "start_p50",
                "Milliseconds from sending to the start of a task",
                "an idle worker of two processes, median",
                True,
            ),
        ),
    ),
    "enqueue": Table(
        ("single", "bulk", "bytes"),
        by="single",
        drawings=(
            Drawing(
                "benchmark-enqueue.svg",
                "single",
                "Calls sent a second, one by one",
                "one process, no worker running",
            ),
        ),
    ),
    "idle": Table(("cpu", "commands", "memory", "processes"), by="-memory"),
}


def shown(file: dict[str, Any], name: str) -> list[str]:
    """Return the lines of one table in Markdown, and of where it was measured."""
    if file["measure"] == "pages":
        return _pages(file["figures"])
    measure = MEASURES[file["measure"]]
    if measure.curves:
        return [*_curves(measure, file["medians"]), _where(file)]
    table = TABLES.get(name, Table(tuple(column.key for column in measure.columns)))
    results: dict[str, Figures] = file["medians"]
    # A column that no system has a figure for is left out.
    columns = [column for key in table.columns for column in measure.columns if column.key == key]
    columns = [c for c in columns if any(f.get(c.key) is not None for f in results.values())]
    kept = {name: figures for name, figures in results.items() if _fits(name, table)}
    shares = ratios(measure, kept)
    wanted = [f"{key} ÷ {whom}" for key, whom in table.shares]
    titles = [column.title for column in columns] + [
        f"÷ {'the fastest peer' if whom == FASTEST else 'Celery'}" for _, whom in table.shares
    ]
    packages = file.get("machine", {}).get("packages", {})
    rows = []
    for system in _ordered(kept, table.by):
        cells = [_cell(kept[system].get(column.key), column.digits) for column in columns]
        cells += [_cell(shares[system].get(key), 2) for key in wanted]
        rows.append([label(system, packages), *cells])
    lines = []
    for drawing in table.drawings:
        lines += [f"![Chart: {drawing.title}](images/{drawing.file})", ""]
    return [*lines, *_markdown(["system", *titles], rows), "", _where(file)]


def _curves(measure: Measure, results: dict[str, Figures]) -> list[str]:
    """Return a table for each thing that was measured at several sizes, with a line for each."""
    lines = []
    for figures in results.values():
        for what, sizes in by_size(measure, figures).items():
            titles = [column.title for column in next(iter(sizes.values()))]
            rows = [
                [f"{int(size):,}", *(_cell(figures[column.key], column.digits) for column in some)]
                for size, some in sizes.items()
            ]
            lines += [*_markdown([what, *titles], rows, first="---:"), ""]
    return lines


def _fits(name: str, table: Table) -> bool:
    results = SYSTEMS[name].results
    return not table.which or (table.which == "kept") == bool(results)


def _ordered(figures: dict[str, Figures], by: str) -> list[str]:
    if not by:
        return list(figures)
    key, sign = by.removeprefix("-"), 1 if by.startswith("-") else -1
    return sorted(figures, key=lambda name: sign * (figures[name].get(key) or 0))


def _cell(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def _markdown(titles: list[str], rows: Iterable[list[str]], first: str = "---") -> list[str]:
    lines = [titles, [first, *["---:"] * (len(titles) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _where(file: dict[str, Any]) -> str:
    where, rounds = file.get("machine", {}), file.get("rounds", {})
    times = {len(found) for found in rounds.values()} or {0}
    said = f"{min(times)} to {max(times)}" if len(times) > 1 else max(times)
    parts = [f"`{file['measure']}`"]
    parts += [f"medians of {said} interleaved rounds"] if max(times) > 1 else []
    parts += [f"{where['cores']} cores"] if "cores" in where else []
    parts += [f"load {where['load_before']:.1f} before"] if "load_before" in where else []
    parts += [f"Python {where['python']}"] if "python" in where else []
    packages = where.get("packages", {})
    parts += [f"Django {packages['django']}"] if "django" in packages else []
    parts += [where["redis_server"]] if "redis_server" in where else []
    parts += [f"PostgreSQL {where['postgres']}"] if where.get("postgres") else []
    return f"*{'; '.join(parts)}.*"


def _pages(figures: dict[str, dict[str, Any]]) -> list[str]:
    titles = ["page", "wall", "CPU", "database", "broker", "queries", "round trips", "kB"]
    rows = []
    for name, found in figures.items():
        times = [f"{found[key][0]:.0f} / {found[key][1]:.0f}" for key in ("wall", "cpu")]
        times += [f"{found[key][0]:.0f}" for key in ("database", "broker")]
        counts = [str(found["queries"]), str(found["trips"]), f"{found['bytes'] / 1000:.0f}"]
        rows.append([name, *times, *counts])
    return _markdown(titles, rows)


def filled(page: str, files: dict[str, dict[str, Any]]) -> str:
    """Return the page with what stands between its markers made anew."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        stem = name.partition("/")[0]
        if stem not in files:
            return match[0]
        lines = "\n".join(shown(files[stem], name))
        return f"<!-- figures: {name} -->\n\n{lines}\n\n<!-- end of figures -->"

    pattern = r"<!-- figures: ([\w/-]+) -->.*?<!-- end of figures -->"
    return re.sub(pattern, block, page, flags=re.DOTALL)


def charts(files: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return file name → SVG, of every chart whose figures there are."""
    return {
        drawing.file: _drawn(files[name.partition("/")[0]], table, drawing)
        for name, table in TABLES.items()
        for drawing in table.drawings
        if name.partition("/")[0] in files
    }


def _drawn(file: dict[str, Any], table: Table, drawing: Drawing) -> str:
    key, packages = drawing.column, file.get("machine", {}).get("packages", {})
    digits = next(c.digits for c in MEASURES[file["measure"]].columns if c.key == key)
    results: dict[str, Figures] = file["medians"]
    kept = {name: f for name, f in results.items() if _fits(name, table) and f.get(key)}
    order = _ordered(kept, f"-{key}" if drawing.least_first else key)
    bars = [Bar(label(n, packages), float(kept[n][key] or 0), _kind(n), digits) for n in order]
    return Chart(drawing.title, drawing.subtitle, bars).svg()


def _kind(name: str) -> str:
    if SYSTEMS[name].peer:
        return "peer"
    return "ours" if name.startswith("jobsite") else "limit"


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return name → content of every file of results."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def main() -> int:
    """Write the page and the charts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page",
        description="Put what was measured into docs/benchmarks.md and its charts.",
    )
    parser.add_argument(
        "files", nargs="*", type=Path, help="of --json; they replace those of before"
    )
    for path in parser.parse_args().files:
        if path.resolve().parent != RESULTS:
            shutil.copy(path, RESULTS / path.name)
    files = read(RESULTS)
    for name, svg in charts(files).items():
        (IMAGES / name).write_text(svg)
    PAGE.write_text(filled(PAGE.read_text(), files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
