"""A project that has an app labelled `jobs` already gives this one another label."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.admin.test_junk import PAGES
from tests.project import ROOT

CONFIG = """
from jobs.apps import JobsConfig

class BackgroundJobs(JobsConfig):
    label = "background"
"""
THEIRS = """
from django.contrib import admin
from django.db import models

class Opening(models.Model):
    title = models.CharField(max_length=100)

admin.site.register(Opening)
"""
SETTINGS = """
from tests.settings import *
INSTALLED_APPS = [one for one in INSTALLED_APPS if one not in ("jobs", "jobsite.demo", "tests")]
INSTALLED_APPS += ["company.jobs", "shop", "shop.config.BackgroundJobs"]
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {**DATABASES["default"], "NAME": "project.sqlite3"}}
JOBS = {"BROKER_URL": "memory://", "QUEUES": {"high": {}, "default": {}, "low": {}}}
TASKS = {}
"""
TASKS = """
from jobs import task

@task
def ship(order: int) -> int:
    return 1 // order
"""
URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""
#: All in one process: starting each command takes longer than the command.
USE = """
import sys
import django
django.setup()
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from jobs import control, testing
from jobs.models import Schedule, TaskResult
from shop.tasks import ship

call_command("check", fail_level="WARNING")
call_command("migrate", run_syncdb=True, verbosity=0)  # the other app has no migrations
call_command("makemigrations", "background", check_changes=True, dry_run=True, verbosity=0)
tables = connection.introspection.table_names()
assert {"background_taskresult", "jobs_opening"} <= set(tables), tables
assert not any(name.startswith("jobs_") for name in tables if name != "jobs_opening"), tables
with transaction.atomic():
    good, bad = ship.delay(1), ship.delay(0)
testing.run_jobs()
assert (good.state, bad.state) == ("SUCCESS", "FAILURE"), (good.state, bad.state)
schedule = Schedule.objects.create(name="nightly", task=ship.name, crontab="0 3 * * *")
operator = User.objects.create_user("operator", is_staff=True)
operator.user_permissions.set(Permission.objects.filter(content_type__app_label="background"))
client = Client()
client.force_login(operator)
pages = sys.argv[1:]
pages += [f"/admin/background/taskresult/{one.id}/change/" for one in (good, bad)]
pages += ["/admin/", "/admin/background/", f"/admin/background/schedule/{schedule.pk}/change/"]
for page in pages:
    answer = client.get(page)
    assert answer.status_code == 200, (page, answer.status_code)
    assert b"/admin/jobs/" not in answer.content, page
    # What the app's own templates add to Django's.
    own = page.startswith(("/admin/background/taskresult/", "/admin/background/schedule/"))
    assert not own or b'class="jobs-tabs"' in answer.content, page
assert control.retry(bad.id, by="operator")
call_command("migrate", "background", "zero", verbosity=0)
assert not any(name.startswith("background") for name in connection.introspection.table_names())
"""


def test_migrations_permissions_and_pages(tmp_path: Path) -> None:
    for name, text in {
        "company/__init__.py": "",
        "company/jobs/__init__.py": "",
        "company/jobs/models.py": THEIRS,
        "shop/__init__.py": "",
        "shop/config.py": CONFIG,
        "shop/settings.py": SETTINGS,
        "shop/tasks.py": TASKS,
        "shop/urls.py": URLS,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    env = {
        **{key: value for key, value in os.environ.items() if key != "DATABASE_URL"},
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    pages = [page.replace("/jobs/", "/background/") for page in PAGES]
    pages = [page.replace("tests.tasks.trace", "shop.tasks.ship") for page in pages]
    done = subprocess.run(
        [sys.executable, "-c", USE, *pages], cwd=tmp_path, env=env, capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
