"""Medians and ratios of what was measured, as a table to read and as JSON to keep."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from .bench import Bench, interpreter
from .measures import Measure
from .measures.base import Column, Figures
from .systems import ALL, System

FASTEST = "fastest peer"
#: Celery with its results where the system in question has its own.
LIKEWISE = "celery likewise"


def medians(rounds: list[Figures]) -> Figures:
    """Return the median of every figure over the rounds; None where there is none."""
    answer: Figures = {}
    for key in rounds[0]:
        values = [figures[key] for figures in rounds]
        known = [value for value in values if value is not None]
        answer[key] = median(known) if known else None
    return answer


def spreads(rounds: list[Figures]) -> Figures:
    """Return for every figure how far its rounds lie apart, in per cent of the median."""
    answer: Figures = {}
    for key, middle in medians(rounds).items():
        known = [value for figures in rounds if (value := figures[key]) is not None]
        answer[key] = (max(known) - min(known)) / middle * 100 if known and middle else None
    return answer


def ratios(measure: Measure, results: dict[str, Figures]) -> dict[str, dict[str, float]]:
    """Return system → "column ÷ whom" → this system's figure divided by theirs."""
    answer: dict[str, dict[str, float]] = {name: {} for name in results}
    for key, whom in measure.ratios:
        for name, figures in results.items():
            base, value = _base(key, whom, results, ALL[name]), figures.get(key)
            if base and value is not None:
                answer[name][f"{key} ÷ {whom}"] = value / base
    return answer


def _base(key: str, whom: str, results: dict[str, Figures], system: System) -> float | None:
    if whom == LIKEWISE:
        whom = f"celery-{system.results}" if system.results else "celery"
    if whom != FASTEST:
        return results.get(whom, {}).get(key)
    peers = [name for name in results if ALL[name].peer]
    return max((value for name in peers if (value := results[name].get(key))), default=None)


def machine(bench: Bench, systems: Iterable[System], known: dict[str, str]) -> dict[str, Any]:
    """Return where and with what this is measured. ``known``: versions of earlier rounds."""
    packages = dict.fromkeys(["redis", "hiredis", "django"], "")
    packages |= {system.package: system.apart for system in systems}
    packages |= {"django-celery-results": ""} if "celery" in packages else {}
    versions = {name: _version(name, apart) for name, apart in packages.items()}
    return {
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "redis_server": f"{bench.valkey.version()}, appendonly no, save off",
        "postgres": bench.postgres.version() if bench.postgres else None,
        "packages": dict(sorted({**known, **versions}.items())),
    }


def _version(package: str, apart: str) -> str:
    if apart:
        ask = f"from importlib.metadata import version; print(version({package!r}))"
        asked = subprocess.run(
            [interpreter(apart), "-c", ask], capture_output=True, text=True, check=True
        )
        return asked.stdout.strip()
    try:
        return version(package)
    except PackageNotFoundError:
        return "this checkout"


def as_json(
    measure: Measure, rounds: dict[str, list[Figures]], where: dict[str, Any]
) -> dict[str, Any]:
    """Return everything: where, medians, ratios, and each round as it was."""
    results = {name: medians(figures) for name, figures in rounds.items()}
    return {
        "measure": measure.name,
        "machine": where,
        "medians": results,
        "spread_percent": {name: spreads(figures) for name, figures in rounds.items()},
        "ratios": ratios(measure, results),
        "rounds": rounds,
    }


def write(
    file: Path, measure: Measure, rounds: dict[str, list[Figures]], where: dict[str, Any]
) -> None:
    """Write everything to a file that is never half written."""
    unfinished = file.with_suffix(".part")
    text = json.dumps(as_json(measure, rounds, where), indent=2, ensure_ascii=False)
    unfinished.write_text(text + "\n")
    unfinished.replace(file)


def table(measure: Measure, rounds: dict[str, list[Figures]]) -> str:
    """Return the medians and ratios as lines of text, one a system."""
    results = {name: medians(figures) for name, figures in rounds.items()}
    shares = ratios(measure, results)
    # A base that was not measured in this run gives no column.
    known = {label for share in shares.values() for label in share}
    bases = [(key, whom) for key, whom in measure.ratios if f"{key} ÷ {whom}" in known]
    titles = [f"{_title(measure, key)} ÷ {whom}" for key, whom in bases]
    lines = [["system", *(column.title for column in measure.columns), *titles]]
    for name, figures in results.items():
        cells = [_cell(figures.get(column.key), column) for column in measure.columns]
        parts = [shares[name].get(f"{key} ÷ {whom}") for key, whom in bases]
        lines.append([name, *cells, *(_cell(part, Column("", "", 2)) for part in parts)])
    return "\n".join(_aligned(lines))


def by_size(measure: Measure, figures: Figures) -> dict[str, dict[str, list[Column]]]:
    """Return, of a measure with curves, what was measured → size → the columns of that line."""
    found: dict[str, dict[str, list[Column]]] = {}
    for column in measure.columns:
        what, size, _ = column.key.split("/")
        if column.key in figures:
            found.setdefault(what, {}).setdefault(size, []).append(column)
    return found


def curves(measure: Measure, rounds: dict[str, list[Figures]]) -> str:
    """Return the medians as a table for each thing that was measured at several sizes."""
    parts = []
    for name, figures in ((name, medians(one)) for name, one in rounds.items()):
        for what, sizes in by_size(measure, figures).items():
            titles = [column.title for column in next(iter(sizes.values()))]
            lines = [[f"{what}, {name}", *titles]]
            for size, columns in sizes.items():
                cells = [_cell(figures[column.key], column) for column in columns]
                lines.append([f"{int(size):,}", *cells])
            parts.append("\n".join(_aligned(lines)))
    return "\n\n".join(parts)


def _title(measure: Measure, key: str) -> str:
    title = next(column.title for column in measure.columns if column.key == key)
    return title.removesuffix("/s")


def _cell(value: float | None, column: Column) -> str:
    return "–" if value is None else f"{value:,.{column.digits}f}"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    rows = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return [rows[0], "-" * len(rows[0]), *rows[1:]]
