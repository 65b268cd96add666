"""The map of the house. A file of `jobs` imports only from lower levels or its own room: never up,
never in a ring.

That keeps every file readable with what lies below it alone. Imports inside functions and for
types count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "jobs"

#: The rooms of the house, from the lowest level to the highest: each with what it is for.
LEVELS: tuple[dict[str, str], ...] = (
    {
        "exceptions.py": "the errors, one tree",
        "serialization.py": "values to JSON and back",
        "states.py": "the states of a call",
    },
    {
        "conf/": "the settings, read and checked",
        "signals.py": "the signals, and the log lines of their receivers",
    },
    {
        "broker/": "who hands messages out",
        "timing/": "when something is due",
        "registry.py": "tasks by their names",
    },
    {
        "message/": "one call, as a value and on the wire",
        "models/": "the tables",
    },
    {
        "migrations/": "the tables' history",
        "ledger/": "the database's side: outbox, outcomes, history",
        "routing/": "where a call goes",
        "running/": "what a running call knows and says",
    },
    {
        "control/": "what an operator does",
        "logs.py": "which call wrote a line of the log",
    },
    {"api/": "what a programmer holds: tasks, compositions, results"},
    {
        "beat/": "who fires schedules",
        "schedules/": "what code declares, or brings along",
        "limits.py": "the fleet's limits, for code that is no task",
        "tasks.py": "this app's own tasks",
    },
    {
        "worker/": "who runs tasks",
        "admin/": "what an operator sees",
        "checks.py": "what `manage.py check` says",
    },
    {"testing.py": "what a project's tests need"},
    {
        "management/": "the commands",
        "contrib/": "bridges to other programs",
    },
    {"apps.py": "what Django starts with"},
)


def level_of(file: str) -> int | None:
    """The level of a file given as "folder/name.py"; None when the map doesn't have it."""
    for level, rooms in enumerate(LEVELS, 1):
        for room in rooms:
            if file == room or (room.endswith("/") and file.startswith(room)):
                return level
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
        level = level_of(file)
        if level is None:
            problems.append(f"{file} has no room: place it in the map of this test")
            continue
        for target in sorted(targets):
            below = level_of(target)
            if below is None or below < level:
                continue
            if below > level or folder_of(target) != folder_of(file):
                problems.append(f"{file} (level {level}) imports {target} (level {below})")
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


def test_nothing_imports_from_a_higher_level() -> None:
    assert wrong_imports(PACKAGE) == []


def test_nothing_imports_in_a_ring() -> None:
    assert ring_of(edges_of(PACKAGE)[0]) == []


def test_the_map_has_no_room_that_is_not_there() -> None:
    assert [room for rooms in LEVELS for room in rooms if not (PACKAGE / room).exists()] == []


def test_the_documentation_shows_the_map() -> None:
    shown = (PACKAGE.parent / "docs" / "internals.md").read_text()
    for level, rooms in enumerate(LEVELS, 1):
        for room, what in rooms.items():
            assert f"| {level} | `jobs/{room}` | {what} |" in shown


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for folder in ("conf", "ledger", "worker"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    for name in ("__init__", "states", "ledger/publish", "worker/consumer"):
        (tmp_path / f"{name}.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "code", "expected"),
    [
        ("ledger/publish.py", "from jobs import conf, states", []),
        (
            "states.py",
            "def f():\n    from jobs.ledger.publish import send",
            ["states.py (level 1) imports ledger/publish.py (level 5)"],
        ),
        (
            "conf/__init__.py",
            "if TYPE_CHECKING:\n    import jobs.worker.consumer",
            ["conf/__init__.py (level 2) imports worker/consumer.py (level 9)"],
        ),
        (
            "ledger/publish.py",
            "from ..worker import consumer",
            ["ledger/publish.py (level 5) imports worker/consumer.py (level 9)"],
        ),
        ("worker/consumer.py", "from ..ledger import publish\nfrom ..conf import get", []),
        (
            "ledger/publish.py",
            "from jobs import task",
            ["ledger/publish.py imports jobs.task: name the file that defines it"],
        ),
        ("odd.py", "", ["odd.py has no room: place it in the map of this test"]),
    ],
)
def test_this_test_sees_wrong_imports(
    package: Path, file: str, code: str, expected: list[str]
) -> None:
    (package / file).write_text(code)
    assert wrong_imports(package) == expected


def test_this_test_sees_rings(package: Path) -> None:
    (package / "conf" / "__init__.py").write_text("import jobs.states")
    (package / "states.py").write_text("import jobs.ledger.publish")
    (package / "ledger" / "publish.py").write_text("import jobs.states")
    assert ring_of(edges_of(package)[0]) == ["states.py", "ledger/publish.py", "states.py"]
