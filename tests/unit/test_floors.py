"""A file of `jobs` imports only from lower floors or its own folder: never up, never in a ring.

That keeps every file readable with what lies below it alone. Imports inside functions and for
types count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "jobs"

#: Floor → its files and folders (with a slash), below `jobs/`.
FLOORS: dict[int, tuple[str, ...]] = {
    1: (
        "celery_names.py",
        "exceptions.py",
        "values.py",
        "queues.py",
        "conf.py",
        "signals.py",
        "serialization.py",
        "commits.py",
        "clock.py",
        "address.py",
    ),
    2: (
        "message/",
        "states.py",
        "timing/",
        "retry.py",
        "cron.py",
        "declaring.py",
        "options.py",
        "routing/",
        "parameters.py",
        "sending.py",
        "rates.py",
        "processes.py",
        "uniqueness.py",
        "functions.py",
        "refusals.py",
    ),
    3: ("workflow/", "request.py", "models/", "migrations/", "broker/"),
    4: (
        "known.py",
        "publish.py",
        "ledger.py",
        "notes.py",
        "progress.py",
        "iteration.py",
        "running.py",
        "results.py",
        "group_results.py",
        "control.py",
        "pausing.py",
        "moving.py",
        "inspecting.py",
        "reopening.py",
        "recovery.py",
        "limits.py",
        "rate_overrides.py",
        "unique.py",
        "metrics.py",
    ),
    5: ("canvas/",),
    6: ("calling.py", "registry.py", "triggers.py"),
    7: ("worker/", "beat/", "periodic/", "importing/", "pruning.py", "tasks.py"),
    8: ("admin/", "checks.py", "apps.py", "testing.py", "management/", "contrib/"),
}


def floor_of(file: str) -> int | None:
    """The floor of a file given as "folder/name.py"; None when the table doesn't have it."""
    for floor, places in FLOORS.items():
        for place in places:
            if file == place or (place.endswith("/") and file.startswith(place)):
                return floor
    return None


def folder_of(file: str) -> str:
    """The folder directly below `jobs/`, "" for the files beside it."""
    return file.split("/")[0] if "/" in file else ""


def files_of(package: Path) -> dict[str, ast.Module]:
    """Every file but the package's lazy front door, which names all the others."""
    return {
        path.relative_to(package).as_posix(): ast.parse(path.read_text())
        for path in sorted(package.rglob("*.py"))
        if path != package / "__init__.py"
    }


def imported_names(tree: ast.Module, file: str) -> Iterator[str]:
    """Full dotted names of what a file imports, wherever the import stands."""
    here = ["jobs", *Path(file).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def file_of(name: str, files: dict[str, ast.Module]) -> str | None:
    """The file that a dotted name lives in: the longest part of it that is a module."""
    parts = name.split(".")[1:]
    while parts:
        for candidate in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
            if candidate in files:
                return candidate
        parts.pop()
    return None


def edges_of(package: Path) -> tuple[dict[str, set[str]], list[str]]:
    """File → the files it imports, and sentences about imports that name no file."""
    files = files_of(package)
    edges: dict[str, set[str]] = {file: set() for file in files}
    problems = []
    for file, tree in files.items():
        for name in imported_names(tree, file):
            if name.split(".")[0] != "jobs":
                continue
            target = file_of(name, files)
            if target is None:
                problems.append(f"{file} imports {name}: name the file that defines it")
            elif target != file:
                edges[file].add(target)
    return edges, problems


def wrong_imports(package: Path) -> list[str]:
    """A sentence for each thing that breaks the rule."""
    edges, problems = edges_of(package)
    for file, targets in edges.items():
        floor = floor_of(file)
        if floor is None:
            problems.append(f"{file} has no floor: add it to the table of this test")
            continue
        for target in sorted(targets):
            below = floor_of(target)
            if below is None or below < floor:
                continue
            if below > floor or folder_of(target) != folder_of(file):
                problems.append(f"{file} (floor {floor}) imports {target} (floor {below})")
    return problems


def ring_of(edges: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a ring, in order; empty when there is none."""
    done: set[str] = set()

    def visit(file: str, way: list[str]) -> list[str]:
        if file in way:
            return [*way[way.index(file) :], file]
        if file in done:
            return []
        for target in sorted(edges[file]):
            if ring := visit(target, [*way, file]):
                return ring
        done.add(file)
        return []

    return next((ring for file in edges if (ring := visit(file, []))), [])


def test_nothing_imports_from_a_higher_floor() -> None:
    assert wrong_imports(PACKAGE) == []


def test_nothing_imports_in_a_ring() -> None:
    assert ring_of(edges_of(PACKAGE)[0]) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "worker").mkdir()
    for name in ("__init__", "conf", "states", "publish", "worker/__init__", "worker/consumer"):
        (tmp_path / f"{name}.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "code", "expected"),
    [
        ("publish.py", "from jobs import conf, states", []),
        (
            "states.py",
            "def f():\n    from jobs.publish import send",
            ["states.py (floor 2) imports publish.py (floor 4)"],
        ),
        (
            "conf.py",
            "if TYPE_CHECKING:\n    import jobs.worker.consumer",
            ["conf.py (floor 1) imports worker/consumer.py (floor 7)"],
        ),
        (
            "publish.py",
            "from .worker import consumer",
            ["publish.py (floor 4) imports worker/consumer.py (floor 7)"],
        ),
        ("worker/consumer.py", "from .. import publish\nfrom ..conf import get", []),
        (
            "publish.py",
            "from jobs import task",
            ["publish.py imports jobs.task: name the file that defines it"],
        ),
        ("odd.py", "", ["odd.py has no floor: add it to the table of this test"]),
    ],
)
def test_this_test_sees_wrong_imports(
    package: Path, file: str, code: str, expected: list[str]
) -> None:
    (package / file).write_text(code)
    assert wrong_imports(package) == expected


def test_this_test_sees_rings(package: Path) -> None:
    (package / "conf.py").write_text("import jobs.states")
    (package / "states.py").write_text("import jobs.publish")
    (package / "publish.py").write_text("import jobs.states")
    assert ring_of(edges_of(package)[0]) == ["states.py", "publish.py", "states.py"]
