"""Make and drop indexes of results without keeping anybody from writing, where PostgreSQL can."""

from __future__ import annotations

from typing import Any

from django.db import models

_PARTITIONS = """
SELECT c.relname FROM pg_class t
LEFT JOIN pg_inherits i ON i.inhparent = t.oid LEFT JOIN pg_class c ON c.oid = i.inhrelid
WHERE t.oid = to_regclass(%s) AND t.relkind = 'p'
"""


def partitions(schema_editor: Any, table: str) -> list[str]:
    """The partitions of a table, which `manage.py jobs_partition` has made; none: it is whole."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(_PARTITIONS, [table])
        return [name for (name,) in cursor.fetchall()]


def make(schema_editor: Any, model: Any, index: models.Index) -> None:
    """Outside a transaction on PostgreSQL. What an interrupted run has left is made anew."""
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.add_index(model, index)
        return
    drop(schema_editor, model, index.name)
    table = model._meta.db_table
    found = partitions(schema_editor, table)
    if not found:
        schema_editor.add_index(model, index, concurrently=True)
        return
    # PostgreSQL makes no index of a partitioned table concurrently, but of each partition.
    sql, named, on = str(index.create_sql(model, schema_editor)), f'"{index.name}"', f'ON "{table}"'
    schema_editor.execute(sql.replace(on, f'ON ONLY "{table}"', 1))
    for partition in found:
        own = f'"{partition}_{index.name}"'
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {own}")
        made = sql.replace(named, own, 1).replace(on, f'ON "{partition}"', 1)
        schema_editor.execute(made.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1))
        schema_editor.execute(f"ALTER INDEX {named} ATTACH PARTITION {own}")


def drop(schema_editor: Any, model: Any, name: str) -> None:
    """On PostgreSQL alone; if it is there."""
    whole = not partitions(schema_editor, model._meta.db_table)
    concurrently = "CONCURRENTLY " if whole else ""
    schema_editor.execute(f"DROP INDEX {concurrently}IF EXISTS {schema_editor.quote_name(name)}")
