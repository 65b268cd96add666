"""Which code `rundev` watches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_django import Settings

from jobs.management.commands import rundev


def test_what_changes_is_named(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BASE_DIR = tmp_path
    for name in ("shop/tasks.py", "venv/lib/x.py", ".hidden/x.py", "node_modules/x/y.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    monkeypatch.setattr(rundev, "_WATCH_SECONDS", 0.0)
    watch = rundev.Watch()
    assert watch.changed() == ""
    os.utime(tmp_path / "shop" / "tasks.py", (1, 1))
    assert watch.changed() == "shop/tasks.py"
    assert watch.changed() == ""
    (tmp_path / "shop" / "new.py").touch()
    assert watch.changed() == "shop/new.py"
    (tmp_path / "shop" / "new.py").unlink()
    assert watch.changed() == "shop/new.py"
    for name in ("venv/lib/y.py", ".hidden/x.py", "node_modules/x/y.py", "shop/notes.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    assert watch.changed() == ""
    monkeypatch.setattr(rundev, "_WATCH_SECONDS", 1000.0)
    assert rundev.Watch().changed() == "", "it is too early to look"
