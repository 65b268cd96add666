from typing import Any

from django.db import migrations

#: Columns that hold ids of calls and of groups, and whether they may be null.
COLUMNS = (
    ("jobs_taskresult", "id", False),
    ("jobs_taskresult", "group_id", True),
    ("jobs_taskresult", "parent_id", True),
    ("jobs_taskresult", "root_id", True),
    ("jobs_taskattempt", "result_id", False),
    ("jobs_taskgroup", "id", False),
)


def by_bytes(apps: Any, schema_editor: Any) -> None:
    """MySQL and MariaDB compare without case by default, and without spaces at the end; elsewhere,
    on Redis too, two such ids are two calls. Nothing is done on other databases."""
    connection = schema_editor.connection
    if connection.vendor != "mysql":
        return
    if connection.mysql_is_mariadb:
        _collate(schema_editor, "utf8mb4_nopad_bin")
    elif connection.mysql_version >= (8, 0, 17):
        _collate(schema_editor, "utf8mb4_0900_bin")
    else:
        _collate(schema_editor, "utf8mb4_bin")


def as_the_database(apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@character_set_database, @@collation_database")
            _collate(schema_editor, cursor.fetchone()[1])


def _collate(schema_editor: Any, collation: str) -> None:
    charset = collation.partition("_")[0]
    for table, column, null in COLUMNS:
        schema_editor.execute(
            f"ALTER TABLE `{table}` MODIFY `{column}` varchar(255) "
            f"CHARACTER SET {charset} COLLATE {collation} {'NULL' if null else 'NOT NULL'}"
        )


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0006_schedule_expiry"),
    ]

    # Not atomic: these servers commit at each change of a table.
    operations = [migrations.RunPython(by_bytes, as_the_database, atomic=False)]
