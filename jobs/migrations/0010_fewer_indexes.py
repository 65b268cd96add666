import contextlib
from typing import Any

from django.db import migrations, models, transaction

from jobs.migrations import _indexes
from jobs.models import LABEL

#: The index of states: over all rows, as it was, and over those that have not succeeded.
EVERY = models.Index(fields=["state", "-id"], name="jobs_result_state")
OTHERS = models.Index(
    fields=["state", "-id"], name="jobs_result_state_others", condition=~models.Q(state="SUCCESS")
)


def fewer(apps: Any, schema_editor: Any) -> None:
    """Replace the index of states; and on PostgreSQL drop Django's second index of ids, for LIKE,
    which nothing asks: prefixes of ids are found as a range."""
    _replace(apps, schema_editor, EVERY, OTHERS)
    if schema_editor.connection.vendor == "postgresql":
        _indexes.drop(schema_editor, apps.get_model(LABEL, "TaskResult"), _like(schema_editor))


def as_before(apps: Any, schema_editor: Any) -> None:
    _replace(apps, schema_editor, OTHERS, EVERY)
    if schema_editor.connection.vendor == "postgresql":
        result = apps.get_model(LABEL, "TaskResult")
        like = models.Index(
            fields=["id"], name=_like(schema_editor), opclasses=["varchar_pattern_ops"]
        )
        _indexes.make(schema_editor, result, like)


def _replace(apps: Any, schema_editor: Any, old: models.Index, new: models.Index) -> None:
    result = apps.get_model(LABEL, "TaskResult")
    connection = schema_editor.connection
    if connection.vendor == "postgresql":
        _indexes.make(schema_editor, result, new)
        _indexes.drop(schema_editor, result, old.name)
        return
    whole = connection.features.can_rollback_ddl
    with transaction.atomic(using=connection.alias) if whole else contextlib.nullcontext():
        schema_editor.add_index(result, new)
        schema_editor.remove_index(result, old)


def _like(schema_editor: Any) -> str:
    return str(schema_editor._create_index_name(f"{LABEL}_taskresult", ["id"], suffix="_like"))


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0009_operators_view"),
    ]

    # PostgreSQL makes and drops indexes concurrently only outside a transaction.
    atomic = False

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunPython(fewer, as_before, hints={"model_name": "taskresult"})
            ],
            state_operations=[
                migrations.RemoveIndex(model_name="taskresult", name=EVERY.name),
                migrations.AddIndex(model_name="taskresult", index=OTHERS),
            ],
        ),
    ]
