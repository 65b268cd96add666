"""The admin's pages under other themes of the admin. A theme has to be among the settings when
Django starts, so each runs `themed.py` in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("theme", ["unfold", "jazzmin", "grappelli"])
@pytest.mark.timeout(300)
def test_theme(theme: str) -> None:
    if importlib.util.find_spec(theme) is None:
        pytest.skip(f"django-{theme} is not installed")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # A theme's own warnings are not ours.
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "default", "--tb=short"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--ds=tests.themed", "tests/browser/themed.py"],
        env={**env, "THEME": theme},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-6000:]
