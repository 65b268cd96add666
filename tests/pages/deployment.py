"""What docs/deployment.md takes for granted."""

from types import SimpleNamespace
from typing import Any

import psycopg.conninfo

os = SimpleNamespace(environ={"DATABASE_PASSWORD": "secret"})
DATABASES: dict[str, dict[str, Any]] = {"default": {"OPTIONS": {}}}


def afterwards(page: Any) -> None:
    # The last block is PostgreSQL's; an option that libpq doesn't know raises.
    assert psycopg.conninfo.make_conninfo(**page.DATABASES["default"]["OPTIONS"])
