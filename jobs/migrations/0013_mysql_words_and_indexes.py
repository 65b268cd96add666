from typing import Any

from django.db import migrations

from jobs.migrations import _collations
from jobs.models import LABEL

#: Model → columns that rows are told apart by, besides ids, for which migration 0007 does the same:
#: tasks, queues, labels or schedules whose names differ by case alone are two.
COLUMNS = {
    "TaskResult": ("task", "queue", "error_type", "label"),
    "KnownError": ("task", "error_type"),
    "Schedule": ("name",),
}


def by_bytes(apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    if connection.vendor == "mysql":
        was, is_now = _collations.of_the_database(connection), _collations.by_bytes(connection)
        _collate(apps, schema_editor, was, is_now)


def as_the_database(apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    if connection.vendor == "mysql":
        was, is_now = _collations.by_bytes(connection), _collations.of_the_database(connection)
        _collate(apps, schema_editor, was, is_now)


def _collate(apps: Any, schema_editor: Any, was: str, is_now: str) -> None:
    for model_name, names in COLUMNS.items():
        model = apps.get_model(LABEL, model_name)
        for name in names:
            versions = []
            for collation in (was, is_now):
                field = model._meta.get_field(name).clone()
                field.db_collation = collation
                field.set_attributes_from_name(name)
                field.model = model
                versions.append(field)
            schema_editor.alter_field(model, *versions)


def whole_indexes(apps: Any, schema_editor: Any) -> None:
    """Where there are no indexes of a part of the rows, Django makes none: make those of all rows.
    Without them, the relay's question once a second reads the whole ledger.

    Nothing undoes this: the migrations that state these indexes drop them on the way back, also
    where Django has made none.
    """
    connection = schema_editor.connection
    if connection.features.supports_partial_indexes:
        return
    model = apps.get_model(LABEL, "TaskResult")
    with connection.cursor() as cursor:
        there = connection.introspection.get_constraints(cursor, model._meta.db_table)
    for index in model._meta.indexes:
        if index.condition is not None and index.name not in there:
            whole = index.clone()
            whole.condition = None
            schema_editor.add_index(model, whole)


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0012_label_indexes"),
    ]

    # Not atomic: MySQL and MariaDB commit at each change of a table.
    operations = [
        migrations.RunPython(
            by_bytes, as_the_database, atomic=False, hints={"model_name": "taskresult"}
        ),
        migrations.RunPython(
            whole_indexes,
            migrations.RunPython.noop,
            atomic=False,
            hints={"model_name": "taskresult"},
        ),
    ]
