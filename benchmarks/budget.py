"""``python -m benchmarks.budget``: fail when a call has become dearer than the repository allows.

It counts instructions, not time: they are nearly the same in every run, whatever else the machine
does. Needs valgrind (Debian: ``apt-get install valgrind``). Three figures, each for one call:

    delay    ``delay()`` outside a transaction
    work     claim, run and acknowledge a call without a result, in batches of 250
    record   write the result of a call into SQLite and acknowledge it, in batches of 250

Each is divided by the instructions of a reference function that is counted in the same run, so that
another build of the same Python changes it little. ``budget.json`` holds the
figures of each version of Python; ``--write`` (``make budget``) writes those of this one.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .servers import temporary_folder, valkey

ROOT = Path(__file__).resolve().parent.parent
FILE = Path(__file__).with_name("budget.json")
#: A figure may grow by so much, as a share of itself.
MARGIN = 0.10
#: Longest wait for valgrind, which makes everything some fifty times as slow.
SECONDS = 300
PACKAGES = ("django", "redis", "hiredis", "msgspec")

#: Calls of one batch.
BATCH = 250
WARM_BATCHES, BATCHES = 1, 2
WARM_SENDS, SENDS = 20, 100
WARM_REFERENCES, REFERENCES = 50, 150

#: What valgrind counts up to each mark, in order: a name, and how many calls that was. What has no
#: name is not wanted.
PARTS: tuple[tuple[str, int], ...] = (
    ("", 0),
    ("reference", REFERENCES),
    ("work", BATCH * BATCHES),
    *[("", 0), ("record", BATCH)] * BATCHES,
    ("", 0),
    ("delay", SENDS),
)

Figures = dict[str, float]


def figures(counts: dict[str, float]) -> Figures:
    """Return each part's instructions as a multiple of the reference's."""
    return {
        name: count / counts["reference"] for name, count in counts.items() if name != "reference"
    }


def dearer(allowed: Figures, found: Figures) -> list[str]:
    """Return a sentence for each figure that is over its budget, or that has none."""
    sentences = []
    for name, value in found.items():
        if name not in allowed:
            sentences.append(f"{name} has no budget; `make budget` writes it.")
        elif value > allowed[name] * (1 + MARGIN):
            more = (value / allowed[name] - 1) * 100
            sentences.append(
                f"{name} costs {more:.1f} % more than its budget; {MARGIN:.0%} is allowed."
            )
    return sentences


def per_call(counted: list[int]) -> dict[str, float]:
    """Return name → instructions of one call, from what was counted up to each mark."""
    if len(counted) != len(PARTS):
        raise RuntimeError(f"valgrind counted {len(counted)} parts, not {len(PARTS)}.")
    instructions, calls = Counter[str](), Counter[str]()
    for (name, number), count in zip(PARTS, counted, strict=True):
        instructions[name] += count
        calls[name] += number
    return {name: instructions[name] / calls[name] for name in calls if name}


def count(*, metrics: bool = True) -> dict[str, float]:
    """Run ``benchmarks.counted`` under valgrind; return name → instructions of one call."""
    with temporary_folder() as folder, valkey(folder) as server:
        env = {
            **os.environ,
            "BENCH_REDIS_URL": server.url,
            "BENCH_DATABASE_URL": f"sqlite:///{folder / 'budget.sqlite3'}",
            "BENCH_RESULTS": "",
            "BENCH_METRICS": "on" if metrics else "off",
            # Else sets have another order in each run.
            "PYTHONHASHSEED": "0",
        }
        prepare = [sys.executable, "-m", "benchmarks.agent", "benchmarks.apps.jobsite", "prepare"]
        subprocess.run([*prepare, "{}"], cwd=ROOT, env=env, check=True, capture_output=True)
        return per_call(_under_valgrind(folder, env))


def _under_valgrind(folder: Path, env: dict[str, str]) -> list[int]:
    """Return the instructions up to each mark.

    It counts nothing while Python starts and imports, which would take a minute.
    """
    command = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"]
    command += ["--dump-before=getsid", f"--callgrind-out-file={folder / 'counted'}"]
    with (folder / "counted.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, sys.executable, "-m", "benchmarks.counted"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        # Also while it is waited for below.
        killer = threading.Timer(SECONDS, process.kill)
        killer.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() == "ready\n":
                vgdb = ["vgdb", f"--pid={process.pid}", "instrumentation", "on"]
                subprocess.run(vgdb, check=True, capture_output=True, timeout=SECONDS)
                process.stdin.write("\n")
                process.stdin.flush()
            status = process.wait()
        finally:
            killer.cancel()
            process.kill()
            process.wait()
        if status:
            log.seek(0)
            raise RuntimeError(f"benchmarks.counted ended with status {status}:\n{log.read()}")
    files = sorted(folder.glob("counted.[0-9]*"), key=lambda file: int(file.suffix[1:]))
    return [_total(file.read_text()) for file in files]


def _total(profile: str) -> int:
    found = re.search(r"^summary: (\d+)$", profile, re.MULTILINE)
    return int(found[1]) if found else 0


def here() -> str:
    """Return the key of this interpreter in the file."""
    return f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    """Count and compare; return 1 when something has become dearer."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budget", description="Compare what a call costs to its budget."
    )
    parser.add_argument("--write", action="store_true", help="make what is found the budget")
    parser.add_argument("--metrics", action="store_true", help="show what the metrics cost")
    options = parser.parse_args()
    if missing := [name for name in ("valgrind", "vgdb") if not shutil.which(name)]:
        print(f"The budget is not checked: there is no {missing[0]} (apt-get install valgrind).")
        return 1 if os.environ.get("CI") or options.write or options.metrics else 0
    if options.metrics:
        return _show_metrics()
    budgets = json.loads(FILE.read_text()) if FILE.exists() else {}
    budget = budgets.get(here())
    if budget is None and not options.write:
        print(f"The budget is not checked: there is none for {here()}; `make budget` writes it.")
        return 0
    counted = count()
    found = figures(counted)
    if options.write:
        packages = {name: version(name) for name in PACKAGES}
        budgets[here()] = {
            "figures": {name: round(value, 3) for name, value in found.items()},
            "packages": packages,
        }
        FILE.write_text(json.dumps(budgets, indent=2, sort_keys=True) + "\n")
    return compare(budgets[here()], counted)


def compare(budget: dict[str, Any], counted: dict[str, float]) -> int:
    """Print each figure beside its budget; return 1 when one is dearer than it may be."""
    allowed, found = budget["figures"], figures(counted)
    for name, value in found.items():
        share = f"{value / allowed[name] - 1:+.1%}" if name in allowed else "–"
        print(f"{name:8} {counted[name]:>10,.0f} instructions, {value:8.3f} × reference, {share}")
    sentences = dearer(allowed, found)
    for sentence in sentences:
        print(sentence)
    if sentences:
        now = {name: version(name) for name in PACKAGES}
        others = [f"{name} {budget['packages'].get(name)} → {now[name]}" for name in now]
        print(f"Counted on {platform.python_version()} with {', '.join(others)}.")
        print("If that is worth it, `make budget` makes it the budget; say why in the commit.")
    return 1 if sentences else 0


def _show_metrics() -> int:
    on, off = count(), count(metrics=False)
    for name in ("work", "record", "delay"):
        more = on[name] / off[name] - 1
        print(f"{name:8} {on[name]:>10,.0f} with metrics, {off[name]:>10,.0f} without: {more:+.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
