from typing import Any

from django.db import migrations

from jobs.migrations import _collations
from jobs.models import LABEL

#: Columns that hold ids of calls and of groups, and whether they may be null.
COLUMNS = (
    (f"{LABEL}_taskresult", "id", False),
    (f"{LABEL}_taskresult", "group_id", True),
    (f"{LABEL}_taskresult", "parent_id", True),
    (f"{LABEL}_taskresult", "root_id", True),
    (f"{LABEL}_taskattempt", "result_id", False),
    (f"{LABEL}_taskgroup", "id", False),
)


def by_bytes(apps: Any, schema_editor: Any) -> None:
    """Two ids that differ by case alone are two calls, as on Redis."""
    connection = schema_editor.connection
    if connection.vendor == "mysql":
        _collate(schema_editor, _collations.by_bytes(connection))


def as_the_database(apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    if connection.vendor == "mysql":
        _collate(schema_editor, _collations.of_the_database(connection))


def _collate(schema_editor: Any, collation: str) -> None:
    charset = collation.partition("_")[0]
    for table, column, null in COLUMNS:
        schema_editor.execute(
            f"ALTER TABLE `{table}` MODIFY `{column}` varchar(255) "
            f"CHARACTER SET {charset} COLLATE {collation} {'NULL' if null else 'NOT NULL'}"
        )


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0006_schedule_expiry"),
    ]

    # Not atomic: these servers commit at each change of a table.
    operations = [migrations.RunPython(by_bytes, as_the_database, atomic=False)]
