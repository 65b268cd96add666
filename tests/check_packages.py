"""`python -m tests.check_packages`: the licences of what the app and its extras install are
permissive ones, and no vulnerability is known that another version mends.

The licences are read from the packages installed here. The package index is asked about the
vulnerabilities; where it can't be reached, a sentence says so, and the licences alone are checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

#: Licences, by their SPDX names, that ask for no more than to be named.
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"),
}

#: Packages that may have another licence, since programs of any licence may use them unchanged.
#: Extras alone ask for them: that of PostgreSQL for the driver that Django supports, that of Sentry
#: for the list of certificate authorities.
EXCEPTIONS = {
    "certifi": "MPL-2.0",
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
}

#: SPDX names of what packages without an SPDX expression say in their classifiers.
_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}

#: How long the index may take for all packages, in seconds.
_PATIENCE = 60


def declared(pyproject: Path) -> Iterator[Requirement]:
    """What the project and each of its extras asks for on this Python."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    for lines in (project["dependencies"], *project["optional-dependencies"].values()):
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def installed_for(requirements: Iterable[Requirement]) -> dict[str, metadata.Distribution | None]:
    """Name → what is installed, of these packages and all that they need in turn; None for what is
    not installed here."""
    found: dict[str, metadata.Distribution | None] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = (name, frozenset(requirement.extras))
        if wanted in seen:
            continue
        seen.add(wanted)
        try:
            found[name] = package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            continue
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                waiting.append(needed)
    return dict(sorted(found.items()))


def licence_of(package: metadata.Distribution) -> str:
    """Its licence as an SPDX expression, or what it says instead; "" when it says nothing."""
    about = package.metadata
    if expressions := about.get_all("License-Expression"):
        return str(expressions[0])
    named = [line for line in about.get_all("Classifier", ()) if line.startswith("License ::")]
    if named:
        return " AND ".join(_CLASSIFIERS.get(line, line) for line in named)
    return "".join(about.get_all("License", ())[:1]).partition("\n")[0]


def is_allowed(name: str, licence: str) -> bool:
    """Whether one of the alternatives of the expression consists of permissive licences alone."""
    return EXCEPTIONS.get(name) == licence or any(
        all(part.strip(" ()") in PERMISSIVE for part in alternative.split(" AND "))
        for alternative in licence.split(" OR ")
    )


def answers(pinned: Iterable[str]) -> list[dict[str, Any]]:
    """What the index says of packages given as ``name==version``: of each its ``name``, ``version``
    and ``vulns``. Those that it doesn't answer about are left out."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as listed:
        listed.write("\n".join(pinned))
        listed.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", listed.name, "--no-deps"]
        command += ["--disable-pip", "--progress-spinner", "off", "--format", "json"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
            packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, ValueError):
            return []
    return [package for package in packages if "vulns" in package]


def unlicensed(packages: dict[str, metadata.Distribution]) -> Iterator[str]:
    """Print the licence of each, and give a sentence for one that isn't allowed."""
    for name, package in packages.items():
        licence = licence_of(package)
        sys.stdout.write(f"{name} {package.version}: {licence or 'no licence named'}\n")
        if not is_allowed(name, licence):
            yield f"{name}: this licence is not on the list of permissive ones"


def vulnerable(names: Iterable[str], answered: list[dict[str, Any]]) -> Iterator[str]:
    """A sentence for each vulnerability that another version mends. The others are printed, since
    nobody can do anything about them here, and so are packages of these ``names`` that the index
    has not answered about."""
    asked = {*names}
    if silent := asked - {canonicalize_name(one["name"]) for one in answered}:
        what = "any package" if silent == asked else ", ".join(sorted(silent))
        sys.stdout.write(f"The index has not said whether {what} has known vulnerabilities.\n")
    for one in answered:
        for found in one["vulns"]:
            text = f"{one['name']} {one['version']}: {found['id']}"
            if found["fix_versions"]:
                yield f"{text}, mended in {', '.join(found['fix_versions'])}"
            else:
                sys.stdout.write(f"{text}, which no version mends yet\n")


def main() -> int:
    found = installed_for(declared(ROOT / "pyproject.toml"))
    packages = {name: package for name, package in found.items() if package is not None}
    for name in sorted(found.keys() - packages.keys()):
        sys.stdout.write(f"{name} is not installed here, so its licence is not read.\n")
    answered = answers(f"{name}=={package.version}" for name, package in packages.items())
    wrong = [*unlicensed(packages), *vulnerable(packages, answered)]
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
