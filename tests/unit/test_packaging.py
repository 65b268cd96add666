"""The package claims what continuous integration tests, and its changelog becomes release notes."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import release
from tests.check_packages import is_allowed, vulnerable

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

CHANGELOG = """\
# Changelog

## [Unreleased]

### Fixed

- Something new.

## [0.2.0] - 2026-01-02

### Added

- Something older.

## [0.1.0] - 2026-01-01

- The first.
"""


def pairs(file: str, pattern: str) -> list[tuple[str, str]]:
    """The pairs of Python and Django that a file names."""
    return re.findall(pattern, (ROOT / file).read_text())


def claimed(prefix: str) -> list[str]:
    lines = [line.removeprefix(prefix) for line in PROJECT["classifiers"]]
    return [line for line in lines if re.fullmatch(r"\d+\.\d+", line)]


def test_every_claimed_version_is_tested() -> None:
    tested = pairs(".github/workflows/ci.yml", r'python: "([\d.]+)", django: "([\d.]+)"')
    assert claimed("Programming Language :: Python :: ") == [python for python, _ in tested]
    assert claimed("Framework :: Django :: ") == [django for _, django in tested]
    assert pairs("noxfile.py", r'\("([\d.]+)", "([\d.]+)"\)') == tested
    by_default = re.search(r"\|\| set -- (.*)", (ROOT / ".ci" / "run").read_text())
    assert by_default is not None
    default = [tuple(pair.split("=")) for pair in by_default[1].split()]
    assert {tested[0], tested[-1]} <= {*default} <= {*tested}
    oldest, newest = tested[0], tested[-1]
    assert PROJECT["requires-python"] == f">={oldest[0]}"
    sentence = f"Python {oldest[0]} to {newest[0]}, Django {oldest[1]} to {newest[1]}"
    assert sentence in (ROOT / "README.md").read_text()


def test_the_site_installs_what_the_app_needs() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    site = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {*map(Requirement, PROJECT["dependencies"])} <= {*site}


def test_no_hint_installs_this_package_by_name() -> None:
    """Nobody has registered the name, so an index may give whatever somebody else puts there."""
    files = [*(ROOT / "jobs").rglob("*"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    texts = [file for file in files if file.suffix in (".py", ".html", ".md", ".po")]
    hint = re.compile(r"pip install[^\n]*(?<!/)\bjobsite\b(?!/)|(?<!/)\bjobsite\[")
    assert [file for file in texts if hint.search(file.read_text())] == []


@pytest.mark.parametrize(
    ("name", "licence", "allowed"),
    [
        ("a", "MIT", True),
        ("a", "Apache-2.0 AND BSD-2-Clause", True),
        ("a", "GPL-3.0-only OR MIT", True),
        ("a", "(MIT AND BSD-3-Clause)", True),
        ("a", "MIT AND GPL-3.0-only", False),
        ("a", "LGPL-3.0-only", False),
        ("psycopg", "LGPL-3.0-only", True),
        ("psycopg", "GPL-3.0-only", False),
        ("a", "", False),
    ],
)
def test_licences(name: str, licence: str, allowed: bool) -> None:
    assert is_allowed(name, licence) is allowed


def test_what_the_index_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        {"id": "CVE-1", "fix_versions": ["2.0", "1.9.1"]},
        {"id": "CVE-2", "fix_versions": []},
    ]
    first = {"name": "First", "version": "1.9", "vulns": found}
    second = {"name": "second", "version": "3.0", "vulns": []}
    mended = "First 1.9: CVE-1, mended in 2.0, 1.9.1"
    assert [*vulnerable(["first", "second"], [first, second])] == [mended]
    assert capsys.readouterr().out == "First 1.9: CVE-2, which no version mends yet\n"
    assert [*vulnerable(["first", "second"], [second])] == []
    said = "The index has not said whether {} has known vulnerabilities.\n"
    assert capsys.readouterr().out == said.format("first")
    assert [*vulnerable(["first", "second"], [])] == []
    assert capsys.readouterr().out == said.format("any package")


def test_a_release_takes_what_was_unreleased() -> None:
    changed = release.released(CHANGELOG, "0.3.0", dt.date(2026, 3, 4))
    assert changed.startswith("# Changelog\n\n## [Unreleased]\n\n## [0.3.0] - 2026-03-04\n\n### F")
    assert release.notes(changed, "0.3.0") == "### Fixed\n\n- Something new.\n"
    assert release.notes(changed, "0.2.0") == "### Added\n\n- Something older.\n"
    assert release.notes(changed, "0.1.0") == "- The first.\n"
    with pytest.raises(release.Refused, match="has nothing under"):
        release.released(changed, "0.3.1", dt.date(2026, 3, 5))
    with pytest.raises(release.Refused, match=r"no section for 0\.3\.1"):
        release.notes(changed, "0.3.1")
