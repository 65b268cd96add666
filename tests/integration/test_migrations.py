"""Migrations that change more than Django's own operations do, forward and back."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations import AddField, RemoveField, RenameField, RenameModel
from django.db.migrations.loader import MigrationLoader
from django.db.models.fields import NOT_PROVIDED

from jobs.models import TaskResult

pytestmark = pytest.mark.django_db(transaction=True)


def indexes() -> set[str]:
    with connection.cursor() as cursor:
        table = TaskResult._meta.db_table
        found = connection.introspection.get_constraints(cursor, table)
    return {name for name, said in found.items() if said["index"]}


def has_like(names: set[str]) -> bool:
    return any(name.endswith("_like") for name in names)


def test_indexes_come_and_go() -> None:
    now = indexes()
    assert {"jobs_result_label", "jobs_result_due"} <= now
    assert "jobs_result_state_others" in now
    assert "jobs_result_state" not in now
    assert not has_like(now)
    try:
        call_command("migrate", "jobs", "0009", verbosity=0)
        before = indexes()
    finally:
        call_command("migrate", verbosity=0)
    assert "jobs_result_state" in before
    assert not before & {"jobs_result_state_others", "jobs_result_label", "jobs_result_due"}
    assert has_like(before) == (connection.vendor == "postgresql")
    assert indexes() == now


def test_older_code_works_with_newer_tables() -> None:
    """It doesn't know the columns that migrations add, so each has a value without it; and no
    migration takes away or renames one that it uses."""
    loader = MigrationLoader(connection)
    found = loader.disk_migrations.items()
    ours = [it for (app, name), it in found if app == "jobs" and name > "0011"]
    assert ours
    for migration in ours:
        for operation in migration.operations:
            assert not isinstance(operation, RemoveField | RenameField | RenameModel), migration
            if isinstance(operation, AddField):
                field = operation.field
                has_value = field.null or field.db_default is not NOT_PROVIDED
                assert has_value, f"{migration}: {operation.name} needs a db_default"
