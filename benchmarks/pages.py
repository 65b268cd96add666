"""``python -m benchmarks.pages``: how long the server takes for each page of the admin when the
ledger (PostgreSQL) and the queues (Valkey) are full."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .servers import postgres, temporary_folder, valkey

#: Rows and messages that are written at once.
CHUNK = 500_000

#: Ten million results of the last 30 days, one in a hundred failed, with ids that begin with their
#: time, as the program makes them.
FILL = """
INSERT INTO jobs_taskresult (id, task, queue, state, args, kwargs, result, error_type, error,
    traceback, attempts, worker, created_at, started_at, finished_at, published_at, message)
SELECT
    substr(stamp, 1, 8) || '-' || substr(stamp, 9, 4) || '-7' || substr(md5(n::text), 1, 3)
        || '-8' || substr(md5(n::text), 4, 3) || '-' || substr(md5(n::text), 7, 12),
    'shop.tasks.task_' || n %% 20,
    (ARRAY['high', 'default', 'low'])[1 + n %% 3],
    CASE WHEN failed THEN 'FAILURE' WHEN n %% 997 = 0 THEN 'REVOKED' ELSE 'SUCCESS' END,
    '[' || n || ', "somebody@example.com"]', '{}', CASE WHEN failed THEN NULL ELSE '42' END,
    CASE WHEN failed THEN 'shop.errors.Problem' || n %% 7 ELSE '' END,
    CASE WHEN failed THEN 'the service answered 503 to request ' || n ELSE '' END,
    CASE WHEN failed THEN repeat('  File "/srv/shop/tasks.py", line 1, in run\n', 20) ELSE '' END,
    1, 'worker-' || n %% 8 || '@host/1.1', at, at + interval '0.2 s', at + interval '0.5 s', at, ''
FROM (
    SELECT n, n %% 100 = 0 AS failed, at,
        lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS stamp
    FROM (
        SELECT n, now() - (%(rows)s - n) * interval '30 days' / %(rows)s AS at
        FROM generate_series(%(first)s, %(last)s) AS n
    ) AS numbers
) AS calls
"""


def fill(rows: int, waiting: int) -> None:
    """Write the rows, without indexes until all are there, and the messages."""
    from django.db import connection

    from jobs import broker, message
    from jobs.broker.base import Outgoing
    from jobs.message import Message
    from jobs.models import TaskResult

    with connection.schema_editor() as editor:
        for index in TaskResult._meta.indexes:
            editor.remove_index(TaskResult, index)
    with connection.cursor() as cursor:
        for first in range(1, rows + 1, CHUNK):
            last = min(first + CHUNK - 1, rows)
            cursor.execute(FILL, {"rows": rows, "first": first, "last": last})
    with connection.schema_editor() as editor:
        for index in TaskResult._meta.indexes:
            editor.add_index(TaskResult, index)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE jobs_taskresult")

    def sent() -> Iterator[Outgoing]:
        for n in range(waiting):
            call = Message(
                id=message.new_id(), task="tests.tasks.add", queue="default", args=[n, 1]
            )
            yield Outgoing("default", message.encode(call))

    broker.get().push(sent())


def pages() -> dict[str, str]:
    """What is asked for: a name → an address."""
    from jobs.models import TaskResult

    failed = TaskResult.objects.filter(state="FAILURE").order_by("-id").values_list("pk", flat=True)
    results, middle = "/admin/jobs/taskresult/", failed[500]
    return {
        "dashboard": "/admin/jobs/dashboard/",
        "dashboard, a week": "/admin/jobs/dashboard/?range=week",
        "queues": "/admin/jobs/queues/",
        "queue": "/admin/jobs/queues/queue/default/",
        "results": results,
        "results, failed": f"{results}?state__exact=FAILURE",
        "results, of a task": f"{results}?task=shop.tasks.task_7",
        "results, failed of a task": f"{results}?state__exact=FAILURE&task=shop.tasks.task_0",
        "results, of an error": f"{results}?error_type=shop.errors.Problem3",
        "results, of a queue, past hour": f"{results}?queue=low&sent=hour",
        "results, an id": f"{results}?q={middle}",
        "results, an error's text": f"{results}?q=answered+503",
        "results, far down": f"{results}?p=older:{middle}",
        "result": f"{results}{middle}/change/",
        "errors": "/admin/jobs/errors/",
        "errors, a week": "/admin/jobs/errors/?range=week",
        "dead letters": "/admin/jobs/deadletters/",
        "tasks": "/admin/jobs/tasks/",
        "workers": "/admin/jobs/workers/",
        "schedules": "/admin/jobs/schedule/",
    }


def measure(times: int) -> dict[str, dict[str, Any]]:
    """Server time of each page in milliseconds, and its size in bytes."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("operator", "", "secret"))
    figures: dict[str, dict[str, Any]] = {}
    for name, address in pages().items():
        took = []
        for _ in range(times + 1):
            began = time.perf_counter()
            answer = client.get(address)
            took.append(1000 * (time.perf_counter() - began))
            time.sleep(0.02)
        took = sorted(took[1:])  # the first one loads templates
        figures[name] = {
            "status": answer.status_code,
            "bytes": len(answer.content),
            "p50": round(statistics.median(took), 1),
            "p95": round(took[int(0.95 * (len(took) - 1))], 1),
        }
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="results in the ledger")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="messages on a queue")
    parser.add_argument("--times", type=int, default=40, help="requests of each page")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        database = stack.enter_context(postgres(folder)).fresh("pages")
        os.environ |= {
            "DATABASE_URL": database,
            "REDIS_URL": stack.enter_context(valkey(folder)).url,
            "SECRET_KEY": "benchmarks",
            "ENV_FILE": "",
            "ALLOWED_HOSTS": "testserver",
            "DJANGO_SETTINGS_MODULE": "jobsite.settings",
        }
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        began = time.monotonic()
        fill(options.rows, options.waiting)
        print(f"filled in {time.monotonic() - began:.0f} s", flush=True)
        figures = measure(options.times)
        connections.close_all()
    print(f"{'page':34} {'status':>6} {'bytes':>9} {'p50 ms':>8} {'p95 ms':>8}")
    for name, found in figures.items():
        print(
            f"{name:34} {found['status']:>6} {found['bytes']:>9,} "
            f"{found['p50']:>8.1f} {found['p95']:>8.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
