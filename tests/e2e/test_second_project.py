"""Another project installs the package, adds it to its settings, and runs a task."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.services import Valkey

SETTINGS = """
SECRET_KEY = "another project's own"
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.sessions", "django.contrib.messages", "jobs", "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}}]
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": %(database)r,
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}}}
USE_TZ = True
ALLOWED_HOSTS = ["testserver"]
JOBS = {"BROKER_URL": %(broker)r}
"""
TASKS = """
from jobs import shared_task

@shared_task
def ship(order: int) -> str:
    return f"shipped {order}"
"""
URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""
USE = """
import django
django.setup()
import jobs
from django.contrib.auth.models import User
from django.test import Client
from shop.tasks import ship

result = ship.delay(7)
print(result.get(timeout=60))
client = Client()
client.force_login(User.objects.create_superuser("operator"))
for page in ("", f"{result.id}/change/"):
    assert client.get(f"/admin/jobs/taskresult/{page}").status_code == 200, page
print(jobs.__file__)
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the package as pip installs it, and nothing else of this repository."""
    source, target = tmp_path / "source", tmp_path / "site"
    # Out of a copy: building writes beside the sources.
    source.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            (source / name).write_bytes((ROOT / name).read_bytes())
        else:
            (source / name).touch()
    subprocess.run(["cp", "-R", str(ROOT / "jobs"), str(source / "jobs")], check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--target", str(target), str(source)]
    subprocess.run(command, check=True, timeout=100)
    return target


def test_another_project(installed: Path, own_valkey: Valkey, tmp_path: Path) -> None:
    assert sorted(p.name for p in installed.iterdir() if p.suffix != ".dist-info") == ["jobs"]
    folder = tmp_path / "project"
    shop = folder / "shop"
    shop.mkdir(parents=True)
    values = {"database": str(folder / "db.sqlite3"), "broker": own_valkey.url}
    (shop / "__init__.py").touch()
    (shop / "settings.py").write_text(SETTINGS % values)
    (shop / "tasks.py").write_text(TASKS)
    (shop / "urls.py").write_text(URLS)
    env = {
        **{k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")},
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join([str(folder), str(installed)]),
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=env, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    run("-m", "django", "check", "--fail-level", "WARNING")
    run("-m", "django", "migrate", "-v0")
    run("-m", "django", "makemigrations", "--check", "--dry-run")
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "django", "runworker", "--processes", "1"],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
        )
    try:
        printed = run("-c", USE).splitlines()
    finally:
        worker.terminate()
        status = worker.wait(60)
    assert printed == ["shipped 7", str(installed / "jobs" / "__init__.py")]
    assert status == 0, (folder / "worker.log").read_text()
