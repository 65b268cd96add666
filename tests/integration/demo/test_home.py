"""The home page, and the nightly summary with its schedule."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection

from jobs.models import Schedule
from jobsite.demo.models import Subscriber, Upload
from jobsite.demo.tasks import nightly_summary
from tests.integration.demo.reading import read

pytestmark = pytest.mark.django_db

migration = importlib.import_module("jobsite.demo.migrations.0002_nightly_summary")


def test_home_leads_to_the_pages_and_the_admin(client):
    page = client.get("/").text
    for address in ("/uploads/", "/sign-up/", "/admin/", "/admin/jobs/queues/"):
        assert f'href="{address}"' in page


@pytest.mark.parametrize("debug", [True, False])
def test_the_password_is_told_in_development_alone(client, settings, debug):
    settings.DEBUG = debug
    assert ("<kbd>admin</kbd>" in client.get("/").text) is debug


@pytest.mark.parametrize("path", ["/", "/uploads/", "/sign-up/"])
def test_pages_carry_no_inline_code_or_style(client, path):
    page = client.get(path).text
    assert "<script>" not in page
    assert "style=" not in page
    assert "onclick" not in page


def test_the_schedule_comes_with_the_migration_and_goes_with_it():
    editor = SimpleNamespace(connection=connection)
    migration.remove(apps, editor)
    assert not Schedule.objects.filter(name=migration.NAME).exists()
    migration.create(apps, editor)
    migration.create(apps, editor)
    schedule = Schedule.objects.get(name=migration.NAME)
    schedule.full_clean()
    assert schedule.task == nightly_summary.name
    assert (schedule.next_run_at.hour, schedule.next_run_at.minute) == (3, 0)


def test_the_summary_counts_the_last_day():
    upload = Upload.objects.create(file_name="a.csv", content=b"a\n1\n2\n")
    read(upload.pk)
    Upload.objects.create(file_name="waiting.csv", content=b"a\n1\n")
    Subscriber.objects.create(name="Ada", email="ada@example.org")
    assert nightly_summary() == {"uploads": 1, "rows": 2, "subscribers": 1}
