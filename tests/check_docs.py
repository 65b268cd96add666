"""`python -m tests.check_docs`: the links between the pages lead somewhere, and the changelog says
what is new. Needs no network, and no history of the repository.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = ROOT / "CHANGELOG.md"


def pages() -> list[Path]:
    """Every page of the repository; generated and installed ones are none of its own."""
    skipped = {"node_modules", "build", "dist", "staticfiles"}
    return sorted(
        page
        for page in ROOT.rglob("*.md")
        if not any(part[0] == "." or part in skipped for part in page.relative_to(ROOT).parts)
    )


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of its headings as forges make them: the second of the same name ends in -1."""
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', prose(page)))
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken_links(page: Path) -> Iterator[str]:
    text = prose(page)
    targets = re.findall(r"\]\(<?([^)\s>]+)", text)
    targets += re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: {target}: no such file"
        elif anchor and anchor not in anchors(file):
            yield f"{page.relative_to(ROOT)}: {target}: no such heading"


def silent_changelog() -> Iterator[str]:
    """Whether ``[Unreleased]`` says something. It may be empty only when the code is that of the
    last release, which a checkout without tags can't tell."""
    text = CHANGELOG.read_text(encoding="utf-8")
    section = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        yield "CHANGELOG.md: no section [Unreleased]"
    elif not re.search(r"^- ", section[1], re.MULTILINE) and not _as_released():
        yield "CHANGELOG.md: jobs/ has changed, and [Unreleased] has no entry"


def _as_released() -> bool:
    def git(*args: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(ROOT), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    tag = git("describe", "--tags", "--abbrev=0")
    return (
        tag.returncode == 0
        and not git("diff", "--quiet", tag.stdout.strip(), "--", "jobs").returncode
    )


def main() -> int:
    wrong = [line for page in pages() for line in broken_links(page)]
    wrong += silent_changelog()
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
