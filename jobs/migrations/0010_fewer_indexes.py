import contextlib
from typing import Any

from django.db import migrations, models, transaction

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
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_like(schema_editor)}")


def as_before(apps: Any, schema_editor: Any) -> None:
    _replace(apps, schema_editor, OTHERS, EVERY)
    if schema_editor.connection.vendor == "postgresql":
        name = _like(schema_editor)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        schema_editor.execute(
            f"CREATE INDEX CONCURRENTLY {name} ON jobs_taskresult (id varchar_pattern_ops)"
        )


def _replace(apps: Any, schema_editor: Any, old: models.Index, new: models.Index) -> None:
    result = apps.get_model("jobs", "TaskResult")
    connection = schema_editor.connection
    if connection.vendor == "postgresql":
        # Nobody is kept from writing meanwhile. What an interrupted run has left is made anew.
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {new.name}")
        schema_editor.add_index(result, new, concurrently=True)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {old.name}")
        return
    whole = connection.features.can_rollback_ddl
    with transaction.atomic(using=connection.alias) if whole else contextlib.nullcontext():
        schema_editor.add_index(result, new)
        schema_editor.remove_index(result, old)


def _like(schema_editor: Any) -> str:
    name = schema_editor._create_index_name("jobs_taskresult", ["id"], suffix="_like")
    return str(schema_editor.quote_name(name))


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0009_operators_view"),
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
