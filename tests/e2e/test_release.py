"""`python -m tests.release`, in a clone of the repository as it is committed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import release
from tests.project import ROOT

#: Building takes long on a machine that does other things as well.
pytestmark = pytest.mark.timeout(400)


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something is unreleased in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a clone of the repository")
    # Git refuses a clone of what belongs to somebody else, and asks who commits.
    mine = tmp_path / "gitconfig"
    mine.write_text("[safe]\n\tdirectory = *\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(mine))
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--no-tags", str(ROOT), str(folder))
    git(folder, "config", "user.name", "Somebody")
    git(folder, "config", "user.email", "somebody@example.com")
    changelog = folder / "CHANGELOG.md"
    heading = "## [Unreleased]\n"
    changelog.write_text(changelog.read_text().replace(heading, f"{heading}\n- A line.\n", 1))
    git(folder, "commit", "--quiet", "--all", "--message", "Change something")
    return folder


def test_a_release(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = git(clone, "rev-parse", "HEAD")
    assert release.main(["77.0.1"], clone) == 0
    assert "git push origin HEAD v77.0.1" in capfd.readouterr().out
    assert sorted(file.name for file in (clone / "dist").iterdir()) == [
        "jobsite-77.0.1-py3-none-any.whl",
        "jobsite-77.0.1.tar.gz",
    ]
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "rev-parse", "HEAD^") == before
    assert git(clone, "rev-parse", "v77.0.1^{commit}") == git(clone, "rev-parse", "HEAD")
    assert '__version__ = "77.0.1"\n' in git(clone, "show", "HEAD:jobs/__init__.py")
    told = git(clone, "tag", "--list", "--format=%(contents)", "v77.0.1")
    assert release.main(["--notes", "77.0.1"], clone) == 0
    notes = capfd.readouterr().out
    assert notes.startswith("- A line.\n")
    assert told == f"Jobsite 77.0.1\n\n{notes}".strip()

    assert release.main(["--build", "77.0.2"], clone) == 1
    assert release.main(["77.0.1"], clone) == 1
    assert release.main(["77.0.2"], clone) == 1
    assert capfd.readouterr().err.splitlines() == [
        "The version of the code is 77.0.1.",
        "There is a tag v77.0.1 already.",
        "CHANGELOG.md has nothing under [Unreleased].",
    ]
    assert git(clone, "status", "--porcelain") == ""


def test_what_is_refused(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(version: str) -> str:
        assert release.main([version], clone) == 1
        return capfd.readouterr().err

    assert "'1.2' is not a version such as 1.2.3" in refused("1.2")
    assert "'v77.0.0' is not a version such as 1.2.3" in refused("v77.0.0")
    assert "'new' is not a version such as 1.2.3" in refused("new")
    assert "0.0.1 is older than" in refused("0.0.1")
    (clone / "more.txt").touch()
    assert "Commit or put away what has changed:\n?? more.txt" in refused("77.0.0")
    (clone / "more.txt").unlink()
    pyproject = clone / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("[project]", "[project]\nnonsense = 1\n["))
    git(clone, "commit", "--quiet", "--all", "--message", "Make it impossible to build")
    assert "This failed: " in refused("77.0.0")
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "tag", "--list") == ""
