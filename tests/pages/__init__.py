"""The blocks of code of the documentation's pages, and how they are run.

A page is one story: its blocks are run from top to bottom in one module, ``shop.tasks``. What the
page takes for granted (a model, a request, a task of the reader's own) is in the file of the same
name beside this one, ``tests/pages/guide.py`` for ``docs/guide.md``, which is run first. Its
function ``afterwards(page)``, if there is one, gets the page's names and looks at what has become
of them.

=========  =====================================================================================
python     Is run; settings are checked by ``manage.py check`` and stay set. ``x  # 3`` must be 3
           if the comment is a literal, and so must what follows ``>>>``.
shell      Each `manage.py` command is parsed by its own parser, and run unless it would stay;
           targets of make, files and extras must exist. Indented blocks that begin with a program
           belong here as well.
data       JSON, TOML, YAML and INI are parsed, templates compiled, ``conf`` is asked of Valkey,
           and SQL is run on PostgreSQL.
=========  =====================================================================================

A block that can't be run has a comment right before it that says why: ``<!-- not run: … -->``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = Path(__file__).resolve().parent
#: Holds ``shop``, the project of the examples.
PROJECT = STAGES / "project"
#: Have the code of the English ones.
CHINESE = sorted((ROOT / "docs" / "zh").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(set((ROOT / "docs").rglob("*.md")) - set(CHINESE)),
]

#: Pages with code for a test of its own: a project of several files, or what changes the process.
ELSEWHERE = {
    "docs/tutorial.md": "tests/e2e/test_tutorial.py",
    "docs/coming-from-others.md": "tests/integration/test_moving_here.py",
    "docs/sentry.md": "tests/integration/test_sentry.py",
    "docs/polling.md": "tests/integration/test_polling_page.py",
}

#: What the first word of an indented block may be, for it to be one of commands.
PROGRAMS = re.compile(r"(python|make|pip|redis-cli|docker|kubectl|\.venv/bin/\w+)\s")


@dataclass(frozen=True)
class Block:
    page: Path
    #: Of its first line of code.
    line: int
    #: What follows the fence; ``sh`` for indented commands, ``text`` for other indented blocks.
    language: str
    text: str
    #: Why it is not run; empty if it is.
    excuse: str = ""

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    def code(self, mode: str = "exec") -> ast.Module:
        """It as Python, whose errors name the page and its line."""
        return ast.parse("\n" * (self.line - 1) + self.text, str(self.page))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def stage_of(page: Path) -> Path | None:
    """The file with what a page takes for granted."""
    name = page.relative_to(ROOT / "docs") if ROOT / "docs" in page.parents else page.name.lower()
    file = STAGES / str(name).replace("/", "_").replace("-", "_").replace(".md", ".py")
    return file if file.exists() else None


def blocks_of(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").split("\n")
    excuse, at = "", 0
    while at < len(lines):
        line = lines[at]
        if found := re.match(r"( *)```(\S*)", line):
            end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == "```")
            text = "\n".join(inside[len(found[1]) :] for inside in lines[at + 1 : end])
            yield Block(page, at + 2, found[2] or "text", text + "\n", excuse)
            excuse, at = "", end + 1
        elif line.startswith("    ") and not lines[at - 1].strip():
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                end += 1
            text = "\n".join(inside[4:] for inside in lines[at:end]).rstrip()
            language = "sh" if PROGRAMS.match(text) else "text"
            yield Block(page, at + 1, language, text + "\n", excuse)
            excuse, at = "", end
        else:
            if found := re.fullmatch(r"<!-- not run: (.+) -->", line):
                excuse = found[1]
            elif line.strip():
                excuse = ""
            at += 1


def commands_of(block: Block) -> Iterator[str]:
    """The commands of a shell block, without comments and with continued lines joined."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if command := re.sub(r"(^|\s+)#.*", "", line).strip().removeprefix("$ "):
            yield command
