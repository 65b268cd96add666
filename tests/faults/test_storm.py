"""A short storm: see `tests.storm`. The long one is `make storm`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.db import connection

from tests.project import ROOT


@pytest.mark.timeout(300)
def test_a_short_storm() -> None:
    database = "sqlite" if connection.vendor == "sqlite" else "postgres"
    size = ["--tasks", "300", "--kills", "6", "--seconds", "12"]
    size += ["--senders", "2", "--processes", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.storm", *size, "--seed", "7", "--database", database],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.storm.settings"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All promises were kept." in done.stdout
