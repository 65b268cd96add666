"""`make release VERSION=1.2.3`, or `python -m tests.release 1.2.3`: release what is committed.

It puts the version into `jobs/__init__.py`, moves what the changelog has under ``[Unreleased]``
under the version and today's date, builds into `dist/`, checks what was built, commits and tags.
Nothing is pushed. When a step fails, the files are as they were.

``--notes 1.2.3`` prints what the changelog says of a version. ``--build 1.2.3`` only builds and
checks, and fails if the version of the code is another.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent

_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_UNRELEASED = re.compile(r"^## \[Unreleased\]\n+(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class Refused(Exception):
    """Why no release is made, as a sentence."""


def version_of(code: str) -> str:
    """The version that the text of `jobs/__init__.py` names."""
    found = _VERSION.search(code)
    if found is None:
        raise Refused("jobs/__init__.py names no version.")
    return found[1]


def with_version(code: str, version: str) -> str:
    return _VERSION.sub(f'__version__ = "{version}"', code)


def released(changelog: str, version: str, day: dt.date) -> str:
    """The changelog with what was unreleased under this version."""
    found = _UNRELEASED.search(changelog)
    if found is None or not found[1].strip():
        raise Refused("CHANGELOG.md has nothing under [Unreleased].")
    heading = f"## [Unreleased]\n\n## [{version}] - {day.isoformat()}\n\n"
    return changelog[: found.start()] + heading + changelog[found.start(1) :]


def notes(changelog: str, version: str) -> str:
    """What the changelog says of this version, without its heading."""
    heading = rf"^## \[{re.escape(version)}\][^\n]*\n+(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise Refused(f"CHANGELOG.md has no section for {version}.")
    return found[1].strip() + "\n"


def run(*command: str | Path, root: Path) -> None:
    if subprocess.run(command, cwd=root, check=False).returncode:
        raise Refused(f"This failed: {' '.join(map(str, command))}")


def git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Refused(f"This failed: git {' '.join(args)}")
    return done.stdout.strip()


def build(root: Path) -> None:
    """Build the source distribution, and the wheel from it, and check what the index would see."""
    shutil.rmtree(root / "dist", ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", root=root)
    run(sys.executable, "-m", "twine", "check", "--strict", *(root / "dist").iterdir(), root=root)


def check(root: Path, version: str, code: str) -> None:
    """Raise `Refused` unless this version may be released from here."""
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise Refused(f"{version!r} is not a version such as 1.2.3 or 1.2.3rc1.") from None
    if str(wanted) != version or len(wanted.release) != 3:
        raise Refused(f"{version!r} is not a version such as 1.2.3 or 1.2.3rc1.")
    if wanted < Version(version_of(code)):
        raise Refused(f"{version} is older than {version_of(code)}, the version of the code.")
    if git(root, "tag", "--list", f"v{version}"):
        raise Refused(f"There is a tag v{version} already.")
    if changes := git(root, "status", "--porcelain"):
        raise Refused(f"Commit or put away what has changed:\n{changes}")


def release(root: Path, version: str, day: dt.date) -> None:
    """Make the release of what is committed in this clone."""
    module, changelog = root / "jobs" / "__init__.py", root / "CHANGELOG.md"
    code, said = module.read_text(encoding="utf-8"), changelog.read_text(encoding="utf-8")
    check(root, version, code)
    try:
        changelog.write_text(released(said, version, day), encoding="utf-8")
        module.write_text(with_version(code, version), encoding="utf-8")
        build(root)
        git(root, "commit", "--quiet", "--all", "--message", f"Release {version}")
    except BaseException:
        module.write_text(code, encoding="utf-8")
        changelog.write_text(said, encoding="utf-8")
        raise
    message = f"Jobsite {version}\n\n{notes(changelog.read_text(encoding='utf-8'), version)}"
    git(root, "tag", "--annotate", f"v{version}", "--cleanup=verbatim", "--message", message)


def main(args: list[str], root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--notes", action="store_true", help="print the notes of this version")
    only.add_argument("--build", action="store_true", help="only build and check")
    parser.add_argument("version")
    given = parser.parse_args(args)
    try:
        if given.notes:
            changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
            sys.stdout.write(notes(changelog, given.version))
        elif given.build:
            code = (root / "jobs" / "__init__.py").read_text(encoding="utf-8")
            if version_of(code) != given.version:
                raise Refused(f"The version of the code is {version_of(code)}.")
            build(root)
        else:
            release(root, given.version, dt.datetime.now(dt.UTC).date())
            sys.stdout.write(
                f"Released {given.version}, here alone. Look at it with `git show`, and push it:\n"
                f"  git push origin HEAD v{given.version}\n"
            )
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
