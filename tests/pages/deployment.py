"""What docs/deployment.md takes for granted."""

from typing import Any

import psycopg.conninfo

DATABASES: dict[str, dict[str, Any]] = {"default": {"OPTIONS": {}}}


def afterwards(page: Any) -> None:
    # The last block is PostgreSQL's; an option that libpq doesn't know raises.
    assert psycopg.conninfo.make_conninfo(**page.DATABASES["default"]["OPTIONS"])
