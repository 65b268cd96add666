"""How PostgreSQL is told to clean up after the ledger: what the tables should be set to."""

from __future__ import annotations

from typing import NamedTuple

from django.db import connections

from jobs.ledger.outcomes import alias
from jobs.ledger.partitions import TABLE

#: Rows above which a table of results is looked at. Below, PostgreSQL's defaults do.
LARGE = 1_000_000
#: Setting → what is recommended. The settings are shares of a table's rows that may have changed
#: before it is vacuumed or analyzed; PostgreSQL's defaults are made for tables that don't grow.
RECOMMENDED = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_insert_scale_factor": 0.02,
    "autovacuum_analyze_scale_factor": 0.02,
}
#: How much larger than recommended a setting may be.
_TOLERANCE = 5.0


class Table(NamedTuple):
    name: str
    rows: int
    #: Whether autovacuum is on.
    vacuumed: bool
    #: Setting → its value, of those that are too large.
    lax: dict[str, float]


def lax_tables() -> list[Table]:
    """The large tables of results for which autovacuum is off or comes late, the largest first;
    none on other databases than PostgreSQL."""
    connection = connections[alias()]
    if connection.vendor != "postgresql":
        return []
    asked = ", ".join(
        f"coalesce(o.{name}, current_setting('{name}')::float)" for name in RECOMMENDED
    )
    options = ", ".join(
        f"max(option_value) FILTER (WHERE option_name = '{name}')::float AS {name}"
        for name in RECOMMENDED
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT t.relname, t.reltuples::bigint, "  # noqa: S608  no values
            "coalesce(o.enabled, current_setting('autovacuum')::boolean), "
            f"{asked} FROM pg_class t LEFT JOIN LATERAL (SELECT {options}, "
            "max(option_value) FILTER (WHERE option_name = 'autovacuum_enabled')::boolean "
            "AS enabled FROM pg_options_to_table(t.reloptions)) o ON true "
            "WHERE t.relkind = 'r' AND t.reltuples >= %s AND (t.oid = to_regclass(%s) OR t.oid IN "
            "(SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(%s))) "
            "ORDER BY t.reltuples DESC",
            [LARGE, TABLE, TABLE],
        )
        found = cursor.fetchall()
    tables = []
    for name, rows, vacuumed, *values in found:
        lax = {
            setting: value
            for setting, value in zip(RECOMMENDED, values, strict=True)
            if value > _TOLERANCE * RECOMMENDED[setting]
        }
        if lax or not vacuumed:
            tables.append(Table(name, rows, vacuumed, lax))
    return tables


def statement(table: str) -> str:
    """The SQL that sets a table as it is recommended."""
    settings = ", ".join(f"{name} = {value:g}" for name, value in RECOMMENDED.items())
    return f"ALTER TABLE {table} SET ({settings})"
