"""`python -m tests.check_examples`: mypy and pyright find no error in the examples of the
documentation, which must not teach what a reader's own checker refuses.

Each page becomes one module: what it takes for granted (tests/pages), then its blocks. Both
checkers read it as most projects have them, mypy with Django's plugin, and functions without types
as well.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.pages import PAGES, PROJECT, ROOT, Block, blocks_of, name_of, stage_of

#: Pages whose names neither checker can know.
SKIPPED = {
    "docs/deployment.md": "settings, dicts within dicts, which mypy takes for objects",
    "docs/logging.md": "the same",
    "docs/django-tasks.md": "Django 6",
}

MYPY = f"""
[mypy]
plugins = mypy_django_plugin.main
mypy_path = {ROOT}:{PROJECT}
explicit_package_bases = True
check_untyped_defs = True
allow_redefinition = True
local_partial_types = True
follow_imports = silent
cache_dir = {ROOT}/.mypy_cache/pages
disable_error_code = import-not-found, import-untyped, var-annotated

[mypy.plugins.django-stubs]
django_settings_module = tests.settings
"""

#: A page may use a name for two things, one after the other.
PYRIGHT = {
    "typeCheckingMode": "standard",
    "extraPaths": [str(ROOT), str(PROJECT)],
    "reportRedeclaration": False,
    "reportMissingImports": False,
    "reportMissingModuleSource": False,
    "reportAttributeAccessIssue": "error",
}


def module_of(page: Path, blocks: list[Block]) -> tuple[str, list[str]]:
    """The page as a module, and for each of its lines the place in the page."""
    text, places = [], []
    if stage := stage_of(page):
        text, places = [f"from tests.pages.{stage.stem} import *"], [stage.name]
    for block in blocks:
        for n, line in enumerate(block.text.splitlines()):
            # Those are on the page.
            text.append("" if line.startswith("from shop.tasks import") else line)
            places.append(f"{name_of(page)}:{block.line + n}")
    return "\n".join(text) + "\n", places


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {}
        for page in PAGES:
            blocks = [b for b in blocks_of(page) if b.language == "python" and ">>>" not in b.text]
            if blocks and name_of(page) not in SKIPPED:
                file = folder / ("page_" + re.sub(r"\W", "_", name_of(page)) + ".py")
                text, places[file.name] = module_of(page, blocks)
                file.write_text(text, "utf-8")
        (folder / "mypy.ini").write_text(MYPY, "utf-8")
        (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), "utf-8")
        tools = Path(sys.executable).parent
        commands: list[list[str | Path]] = [
            [tools / "mypy", "--config-file", folder / "mypy.ini", "--no-error-summary", folder],
            [tools / "basedpyright", "--pythonpath", sys.executable, "-p", folder],
        ]
        wrong = 0
        for command in commands:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            wrong |= done.returncode
            if done.returncode:
                sys.stderr.write(told(done.stdout + done.stderr, places))
    return int(bool(wrong))


def told(output: str, places: dict[str, list[str]]) -> str:
    """What a checker printed, with the places in the pages."""

    def place(found: re.Match[str]) -> str:
        return places[found[1]][int(found[2]) - 1]

    return re.sub(r"\S*?(page_\w+\.py):(\d+)", place, output)


if __name__ == "__main__":
    sys.exit(main())
