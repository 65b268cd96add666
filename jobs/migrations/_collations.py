"""Compare texts by bytes on MySQL and MariaDB, whose default knows neither case nor spaces at the end,
and for which many a character equals another. Other databases compare by bytes anyway."""

from __future__ import annotations

from typing import Any


def by_bytes(connection: Any) -> str:
    """The collation that does so on this server."""
    if connection.mysql_is_mariadb:
        return "utf8mb4_nopad_bin"
    return "utf8mb4_0900_bin" if connection.mysql_version >= (8, 0, 17) else "utf8mb4_bin"


def of_the_database(connection: Any) -> str:
    """The collation of columns for which nothing is said."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@collation_database")
        return str(cursor.fetchone()[0])
