"""Counting the rows of a results table from outside, without Django."""

import sqlite3


def count_rows(url: str, table: str, where: str, distinct: str = "") -> int:
    """Return how many rows of ``table`` satisfy ``where`` in the database at ``url``.

    ``distinct``: a column, each value of which is counted once.
    """
    what = f"DISTINCT {distinct}" if distinct else "*"
    query = f"SELECT count({what}) FROM {table} WHERE {where}"  # noqa: S608 - constants of ours
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20)
        try:
            return int(connection.execute(query).fetchone()[0])
        finally:
            connection.close()
    import psycopg

    with psycopg.connect(url) as postgres:
        row = postgres.execute(query).fetchone()
        return int(row[0]) if row else 0
