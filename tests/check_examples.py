"""`python -m tests.check_examples`: mypy and pyright find no error in the examples of the
documentation, which must not teach what a reader's own checker refuses.

Each page becomes one module: what it takes for granted (tests/pages), then its blocks. Both
checkers read it as most projects have them, mypy with Django's plugin, and functions without types
as well.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.pages import ELSEWHERE, PAGES, PROJECT, ROOT, Block, blocks_of, name_of, stage_of

#: Pages whose names neither checker can know.
SKIPPED = {
    "docs/deployment.md": "settings, dicts within dicts, which mypy takes for objects",
    "docs/logging.md": "the same",
    "docs/django-tasks.md": "Django 6",
    "docs/tenants.md": "connections of django-tenants",
}

MYPY = """
[mypy]
plugins = mypy_django_plugin.main
mypy_path = {paths}
explicit_package_bases = True
check_untyped_defs = True
allow_redefinition = True
local_partial_types = True
follow_imports = silent
cache_dir = .mypy_cache/pages
disable_error_code = import-not-found, import-untyped, var-annotated

[mypy.plugins.django-stubs]
django_settings_module = examples_settings
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


def write_files(blocks: list[Block], folder: Path) -> None:
    """Those that begin with the name of a file, such as ``# orders/tasks.py, at the end``."""
    for block in blocks:
        if found := re.match(r"# (\w+/(?!settings)\w+\.py)(, at the end)?\n", block.text):
            file = folder / found[1]
            file.parent.mkdir(exist_ok=True)
            before = file.read_text("utf-8") if found[2] and file.exists() else ""
            file.write_text(before + "\n" + block.text, "utf-8")


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {}
        for page in PAGES:
            blocks = [b for b in blocks_of(page) if b.language == "python" and ">>>" not in b.text]
            if name_of(page) in ELSEWHERE:
                write_files(blocks, folder)
            elif blocks and name_of(page) not in SKIPPED:
                file = folder / ("page_" + re.sub(r"\W", "_", name_of(page)) + ".py")
                text, places[file.name] = module_of(page, blocks)
                file.write_text(text, "utf-8")
        (folder / "mypy.ini").write_text(MYPY.format(paths=f"{ROOT}:{PROJECT}:{folder}"), "utf-8")
        (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), "utf-8")
        # Django's plugin knows the models of installed apps.
        apps = [file.parent.name for file in folder.glob("*/models.py")]
        settings = f"from tests.settings import *\n\nINSTALLED_APPS += {apps}\n"
        (folder / "examples_settings.py").write_text(settings, "utf-8")
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        tools = Path(sys.executable).parent
        commands: list[list[str | Path]] = [
            [tools / "mypy", "--config-file", folder / "mypy.ini", "--no-error-summary", folder],
            [tools / "basedpyright", "--pythonpath", sys.executable, "-p", folder],
        ]
        wrong = 0
        for command in commands:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
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
