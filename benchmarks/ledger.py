"""``python -m benchmarks.ledger``: whether a ledger that has grown costs more (PostgreSQL).

One server has the same ledger three times: with few rows, with many in one table, and with many in
partitions of a day. Outcomes are recorded into each in turn, batch after batch, so that a busy
machine slows all of them alike; then the admin's list is asked for.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .servers import postgres, temporary_folder

#: Rows that are written at once, and outcomes of one batch of the recorder.
CHUNK, BATCH = 250_000, 500
#: Days that the rows are spread over.
DAYS = 30

#: As in `benchmarks.pages`, but narrower and made more cheaply, since there are more of them.
FILL = """
INSERT INTO jobs_taskresult (id, task, queue, state, args, kwargs, result, error_type, error,
    traceback, attempts, worker, created_at, started_at, finished_at, published_at, message)
SELECT
    substr(stamp, 1, 8) || '-' || substr(stamp, 9, 4) || '-7' || substr(noise, 1, 3)
        || '-8' || substr(noise, 4, 3) || '-' || noise || '000',
    'shop.tasks.task_' || n %% 100, 'queue_' || n %% 20,
    CASE WHEN failed THEN 'FAILURE' ELSE 'SUCCESS' END, '[' || n || ']', '{}', '42',
    CASE WHEN failed THEN 'shop.errors.Problem' || n %% 7 ELSE '' END,
    CASE WHEN failed THEN 'the service answered 503' ELSE '' END, '',
    1, 'worker-1', at, at, at + interval '0.5 s', at, ''
FROM (
    SELECT n, n %% 97 = 0 AS failed, lpad(to_hex(n), 9, '0') AS noise, at,
        lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS stamp
    FROM (
        SELECT n, now() - (%(rows)s - n) * interval '%(days)s days' / %(rows)s AS at
        FROM generate_series(%(first)s, %(last)s) AS n
    ) AS numbers
) AS calls
"""

#: While rows are written that may be written again.
QUICK = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "'4GB'", "autovacuum": "off"}

PAGES = {
    "the newest": "",
    "failed": "?state__exact=FAILURE",
    "of a task": "?task=shop.tasks.task_7",
    "of an error": "?error_type=shop.errors.Problem3",
    "of a queue": "?queue=queue_7",
    "past 7 days": "?sent=week",
    "an id": "?q={middle}",
    "far down": "?p=older:{oldest}",
}


class Router:
    """Everything is asked of the ledger of the moment."""

    alias = "default"

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.alias

    db_for_write = db_for_read

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


def fill(rows: int, minutes: float, *, parted: bool) -> None:
    """Make the tables, and write results of the last `DAYS` days, for so many minutes at most."""
    from django.core.management import call_command
    from django.db import connections

    from jobs.ledger import partitions
    from jobs.models import TaskResult

    connection, now = connections[Router.alias], dt.datetime.now(dt.UTC)
    call_command("migrate", verbosity=0, database=Router.alias)
    if parted:
        partitions.make_parted()
        first = now - dt.timedelta(days=DAYS + 3)
        while first < now:
            partitions.extend(first, "day")
            first += dt.timedelta(days=14)
    began = time.monotonic()
    with connection.schema_editor() as editor:
        for index in TaskResult._meta.indexes:
            editor.remove_index(TaskResult, index)
    with connection.cursor() as cursor:
        for number in range(1, rows + 1, CHUNK):
            if time.monotonic() - began > 60 * minutes:
                break
            last = min(number + CHUNK - 1, rows)
            cursor.execute(FILL, {"rows": rows, "first": number, "last": last, "days": DAYS})
            if number // CHUNK % 20 == 0:
                print(f"  {last:,} after {time.monotonic() - began:.0f} s", flush=True)
        cursor.execute("SET maintenance_work_mem = '512MB'")
    with connection.schema_editor() as editor:
        for index in TaskResult._meta.indexes:
            editor.add_index(TaskResult, index)
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM ANALYZE {partitions.TABLE}")
        cursor.execute(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
            "WHERE c.relname LIKE 'jobs_taskresult%%' AND c.relkind = 'r'"
        )
        (size,) = cursor.fetchone()
    took = time.monotonic() - began
    print(f"{Router.alias}: {last:,} rows, {size / 2**30:.1f} GiB, in {took:.0f} s", flush=True)


def configure(*, quick: bool) -> None:
    """Have the server write quickly, or safely again."""
    from django.db import connection

    with connection.cursor() as cursor:
        for name, value in QUICK.items():
            what = f"SET {name} = {value}" if quick else f"RESET {name}"
            cursor.execute(f"ALTER SYSTEM {what}")
        cursor.execute("SELECT pg_reload_conf()")


def record(ledgers: list[str], seconds: float) -> dict[str, list[tuple[float, float, float]]]:
    """Of each batch: milliseconds (wall), and CPU of the server and of this process."""
    from django.db import connections

    from jobs import ledger, message
    from jobs.ledger.outcomes import Record

    def batch() -> list[Record]:
        now = dt.datetime.now(dt.UTC)
        return [
            Record(
                *(message.new_id(), f"shop.tasks.task_{n % 100}", f"queue_{n % 20}", "SUCCESS"),
                *(f'[{n}, "somebody@example.com"]', "{}", "42", "", "", "", 1, "worker-1@host/1.1"),
                *(now, None, now, now, now, b""),
            )
            for n in range(BATCH)
        ]

    servers = {name: _server(connections[name]) for name in ledgers}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ledgers}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name in ledgers:
            Router.alias = name
            records = batch()
            began = time.perf_counter(), _cpu(servers[name]), time.process_time()
            ledger.record(records)
            ended = time.perf_counter(), _cpu(servers[name]), time.process_time()
            wall, server, own = (1000 * (b - a) for a, b in zip(began, ended, strict=True))
            found[name].append((wall, server, own))
    return found


def _server(connection: Any) -> int:
    """The process of the server that this connection talks to."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def _cpu(pid: int) -> float:
    """Seconds of CPU that this process has used, exactly."""
    nanoseconds, *_ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(nanoseconds) / 1e9


def lists(times: int) -> None:
    """Ask for the admin's list of the ledger of the moment."""
    from django.contrib.auth.models import User
    from django.db import connections
    from django.test import Client

    from jobs.models import TaskResult

    rows = TaskResult.objects.all()
    failed = rows.filter(state="FAILURE").order_by("-id").values_list("pk", flat=True)
    named = {
        "middle": failed[100],
        "oldest": rows.order_by("id").values_list("pk", flat=True)[1000],
    }
    client = Client()
    operator, _ = User.objects.get_or_create(username="operator", is_staff=True, is_superuser=True)
    client.force_login(operator)
    server = _server(connections[Router.alias])
    print(f"the admin's list, {Router.alias} (ms, median): wall, server CPU, own CPU")
    for name, query in PAGES.items():
        took = []
        gc.collect()
        for _ in range(times + 1):
            began = time.perf_counter(), _cpu(server), time.process_time()
            answer = client.get(f"/admin/jobs/taskresult/{query.format(**named)}")
            ended = time.perf_counter(), _cpu(server), time.process_time()
            took.append([1000 * (b - a) for a, b in zip(began, ended, strict=True)])
        assert answer.status_code == 200, (Router.alias, name)
        # The first one loads templates.
        medians = [statistics.median(values) for values in zip(*took[1:], strict=True)]
        print(f"  {name:14}" + "".join(f"{value:9.1f}" for value in medians), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000_000, help="rows of the large ledgers")
    parser.add_argument("--few", type=int, default=1_000_000, help="rows of the small one")
    parser.add_argument("--parted", type=int, help="of the one in partitions, if others")
    parser.add_argument("--seconds", type=float, default=60, help="how long to record")
    parser.add_argument("--minutes", type=float, default=120, help="to fill a ledger at most")
    parser.add_argument("--times", type=int, default=20, help="requests of each page")
    parser.add_argument("--keep", type=Path, help="keep the server's files here, to use them again")
    options = parser.parse_args()
    sizes = {
        "default": options.few,
        "large": options.rows,
        "parted": options.parted or options.rows,
    }
    with ExitStack() as stack:
        folder = options.keep or stack.enter_context(temporary_folder())
        folder.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(postgres(folder))
        there = {name for name in sizes if (folder / name).exists()}
        urls = {
            name: server.uri.replace("/postgres?", f"/{name}?", 1)
            if name in there
            else server.fresh(name)
            for name in sizes
        }
        os.environ |= {
            "DATABASE_URL": urls["default"],
            "REDIS_URL": "memory://",
            "SECRET_KEY": "benchmarks",
            "ENV_FILE": "",
            "ALLOWED_HOSTS": "testserver",
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings_pages",
        }
        import django
        import environ
        from django.conf import settings

        settings.DATABASE_ROUTERS = [f"{__name__}.Router"]
        for name, url in urls.items():
            settings.DATABASES[name] = environ.Env.db_url_config(url) | {"CONN_MAX_AGE": None}
        django.setup()
        from django.db import connections

        from .ledger import Router as Routed  # not that of __main__

        globals()["Router"] = Routed
        configure(quick=True)
        for name, rows in sizes.items():
            Router.alias = name
            if name not in there:
                fill(rows, options.minutes, parted=name == "parted")
                (folder / name).touch()
        configure(quick=False)
        print(f"{'ledger':10}{'batches':>8}{'wall':>9}{'server CPU':>12}{'own CPU':>9}  ms of 500")
        for name, found in record(list(sizes), options.seconds).items():
            medians = [statistics.median(values) for values in zip(*found, strict=True)]
            wall, cpu, own = medians
            print(f"{name:10}{len(found):8}{wall:9.2f}{cpu:12.2f}{own:9.2f}", flush=True)
        for name in sizes:
            Router.alias = name
            lists(options.times)
        connections.close_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
