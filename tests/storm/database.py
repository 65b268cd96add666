"""The triggers with which the database of a storm notes each end."""

from __future__ import annotations

_ENDS = "('SUCCESS', 'FAILURE', 'REVOKED')"

#: Only a statement that writes the state counts: publishing writes other columns of ended rows.
_SQLITE = [
    f"CREATE TRIGGER storm_{verb} AFTER {event} ON jobs_taskresult WHEN NEW.state IN {_ENDS} "
    "BEGIN INSERT INTO storm_end (task) VALUES (NEW.id); END"
    for verb, event in (("inserted", "INSERT"), ("updated", "UPDATE OF state"))
]
_POSTGRESQL = [
    "CREATE FUNCTION storm_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO storm_end (task) VALUES (NEW.id); RETURN NULL; END $$",
    "CREATE TRIGGER storm_ended AFTER INSERT OR UPDATE OF state ON jobs_taskresult FOR EACH ROW "
    f"WHEN (NEW.state IN {_ENDS}) EXECUTE FUNCTION storm_note()",
]


def note_ends() -> None:
    """Have the database write a row of `End` for each end that is recorded."""
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in _SQLITE if connection.vendor == "sqlite" else _POSTGRESQL:
            cursor.execute(statement)
