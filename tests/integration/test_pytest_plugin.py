"""The plugin for pytest in a project of its own, as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_SETTINGS = """
SECRET_KEY = "plugin"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "jobs"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "dev.sqlite3"}}
JOBS = {"BROKER_URL": "redis://localhost:1/0"}
"""

_TESTS = """
import pytest
from django.core.management import call_command
from django.test import TestCase
from jobs import task
from jobs.exceptions import BrokerUnavailable
from jobs.testing import JobsMixin
from django.contrib.auth.models import User


@task
def count_users():
    return User.objects.count()


@pytest.mark.parametrize("n", range(3))
@pytest.mark.django_db
def test_with_fixtures(enqueued, run_jobs, n):
    User.objects.create(username="one")
    result = count_users.delay()
    assert len(enqueued(count_users)) == len(enqueued) == 1
    run_jobs()
    assert result.get(timeout=0) == 1


@pytest.mark.django_db(transaction=True)
def test_with_commits(enqueued, run_jobs):
    result = count_users.delay()
    run_jobs()
    assert result.get(timeout=0) == 0


def test_without_a_database(enqueued):
    assert not enqueued


@pytest.mark.django_db
def test_runworker_in_a_test():
    User.objects.create(username="one")
    result = count_users.delay()
    call_command("runworker", burst=True)
    assert result.get(timeout=0) == 1


@pytest.mark.jobs_broker
@pytest.mark.django_db(transaction=True)
def test_the_broker_of_the_settings(enqueued):
    with pytest.raises(BrokerUnavailable):
        count_users.apply_async(retry=False)
    assert not enqueued


class Mixed(JobsMixin, TestCase):
    def test_it(self):
        result = count_users.delay()
        self.assertEnqueued(count_users, count=1)
        self.run_jobs()
        assert result.get(timeout=0) == 0
"""


def test_a_project_with_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "plugged.py").write_text(_SETTINGS)
    (tmp_path / "test_it.py").write_text(_TESTS)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "jobs.contrib.pytest_plugin"),
        *("--ds", "plugged", "--strict-markers", "-n", "2"),
    ]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTEST_ADDOPTS": ""}
    ran = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "8 passed" in ran.stdout


def test_a_wrong_setting_of_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\njobs_broker = redis\n")
    command = [sys.executable, "-m", "pytest", "-p", "jobs.contrib.pytest_plugin"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 4
    assert "jobs_broker is 'redis'; it can be memory or settings." in ran.stderr
