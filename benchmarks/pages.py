"""``python -m benchmarks.pages``: how long the server takes for each page of the admin when the
ledger (PostgreSQL) and the queues (Valkey) are full."""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .servers import postgres, temporary_folder, valkey

#: Rows that are written at once.
CHUNK = 500_000

QUEUES, TASKS = int(os.environ.get("BENCH_QUEUES", "20")), 600
DEAD_LETTERS, SCHEDULES, WORKERS, CHILDREN = 10_000, 1_000, 50, 8

#: Results of the last 30 days, one in 97 failed, with ids that begin with their time, as the
#: program makes them.
FILL = """
INSERT INTO jobs_taskresult (id, task, queue, state, args, kwargs, result, error_type, error,
    traceback, attempts, worker, created_at, started_at, finished_at, published_at, message)
SELECT
    substr(stamp, 1, 8) || '-' || substr(stamp, 9, 4) || '-7' || substr(md5(n::text), 1, 3)
        || '-8' || substr(md5(n::text), 4, 3) || '-' || substr(md5(n::text), 7, 12),
    'shop.tasks.task_' || n %% 100,
    'queue_' || n %% 20,
    CASE WHEN failed THEN 'FAILURE' WHEN n %% 997 = 0 THEN 'REVOKED' ELSE 'SUCCESS' END,
    '[' || n || ', "somebody@example.com"]', '{}', CASE WHEN failed THEN NULL ELSE '42' END,
    CASE WHEN failed THEN 'shop.errors.Problem' || n %% 7 ELSE '' END,
    CASE WHEN failed THEN 'the service answered 503 to request ' || n ELSE '' END,
    CASE WHEN failed THEN repeat('  File "/srv/shop/tasks.py", line 1, in run\n', 20) ELSE '' END,
    1, 'worker-' || n %% 8 || '@host/1.1', at, at + interval '0.2 s', at + interval '0.5 s', at, ''
FROM (
    SELECT n, n %% 97 = 0 AS failed, at,
        lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS stamp
    FROM (
        SELECT n, now() - (%(rows)s - n) * interval '30 days' / %(rows)s AS at
        FROM generate_series(%(first)s, %(last)s) AS n
    ) AS numbers
) AS calls
"""


def fill(rows: int, waiting: int) -> None:
    """Write what doesn't age: results, messages, dead letters and schedules."""
    from django.db import connection, transaction

    from jobs import broker, message
    from jobs.broker.base import Outgoing
    from jobs.message import Message
    from jobs.models import Schedule, TaskResult

    def call(n: int) -> bytes:
        task, queue = f"shop.tasks.task_{n % TASKS}", f"queue_{n % QUEUES}"
        return message.encode(Message(id=message.new_id(), task=task, queue=queue, args=[n, 1]))

    # The indexes are made when all rows are there.
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
    due = time.time() + 7 * 86_400
    port = broker.get()
    port.push(Outgoing("queue_0", call(n)) for n in range(waiting))
    port.push(Outgoing("queue_0", call(n), due=due + n) for n in range(waiting))
    for n in range(DEAD_LETTERS):
        reason = f"UnknownTask: no worker knows it {n}" if n % 3 else "WorkerLost: killed 3 times"
        port.bury(f"queue_{n % QUEUES}", call(n), reason, f"worker-{n % WORKERS}")
    with transaction.atomic():
        for n in range(SCHEDULES):
            if n % 2:
                rule: dict[str, Any] = {"interval": dt.timedelta(minutes=n + 1)}
            else:
                rule = {"crontab": f"{n % 60} {n % 24} * * *"}
            Schedule(name=f"schedule {n}", task=f"shop.tasks.task_{n % TASKS}", **rule).save()


def register() -> None:
    """Register the tasks, as a project's modules do."""
    import jobs

    def run(number: int, to: str = "") -> int:
        return number

    for n in range(TASKS):
        jobs.task(name=f"shop.tasks.task_{n}", queue=f"queue_{n % QUEUES}")(run)


def revive() -> None:
    """Write what ages: numbers of the last week, and workers with what they run."""
    from jobs import broker, message
    from jobs.broker.base import Outgoing
    from jobs.broker.counting import Resolution
    from jobs.message import Message

    port: Any = broker.get()
    now = time.time()
    durations = {f"{kind}{n}": 10 * n for kind in "wr" for n in range(10, 20)}
    numbers = {
        "sent": 5000,
        "succeeded": 4900,
        "failed": 100,
        **durations,
        "wait_ms": 1,
        "run_ms": 1,
    }
    # Spans that have numbers of tasks, and those that have only numbers of their queue.
    spans = {Resolution.MINUTE: (70, 70), Resolution.TEN: (150, 150), Resolution.HOUR: (48, 170)}
    spans[Resolution.DAY] = (9, 9)
    for queue in range(QUEUES):
        prefix = port._keys(f"queue_{queue}").metrics
        tasks = range(queue, TASKS, QUEUES)
        of_tasks: dict[str, int] = {"#": len(tasks)}
        for number, task in enumerate(tasks, 1):
            of_tasks[f"=shop.tasks.task_{task}"] = number
            of_tasks |= {f"{number}:{field}": n // 30 for field, n in numbers.items()}
        commands: list[tuple[Any, ...]] = [("HSET", f"{prefix}a", *_flat(numbers))]
        commands.append(("HSET", f"{prefix}b", *_flat(of_tasks)))
        for resolution, (with_tasks, all_) in spans.items():
            last = int(now // resolution.seconds)
            for n in range(all_):
                span = f"{prefix}{resolution}:{last - n}"
                commands.append(("COPY", f"{prefix}a", span, "REPLACE"))
                if n < with_tasks:
                    commands.append(("COPY", f"{prefix}b", f"{span}:tasks", "REPLACE"))
        port._redis.calls(commands)
    for n in range(WORKERS):
        name, queues = f"worker-{n}@host-{n}/1", [f"queue_{(n + k) % QUEUES}" for k in range(4)]
        children, running = [f"{name}/{child}.1" for child in range(CHILDREN)], []
        for served in queues:
            port.renew(served, children, 3600.0)
        for child in children:
            id_ = message.new_id()
            call = Message(id=id_, task=f"shop.tasks.task_{n}", queue=queues[0], args=[n, "x"])
            port.push([Outgoing(queues[0], message.encode(call))])
            port.claim(queues[0], child, 1, 1, 3600.0)
            running.append((queues[0], child, 1, now - n))
        parts = [(name, 100, 50_000_000, False)]
        parts += [(child, 100 + k, 60_000_000, True) for k, child in enumerate(children)]
        report = {
            "host": f"host-{n}",
            "pid": 100,
            "started": now - 3600,
            "queues": queues,
            "processes": CHILDREN,
            "capacity": CHILDREN,
            "processed": 12_345,
            "failed": 67,
            "consumers": children,
            "running": running,
            "state": "running",
            "versions": {"jobs": "1.0", "python": "3.12.1", "django": "5.2"},
            "revision": "a1b2c3",
            "parts": parts,
            "every": 3600.0,
        }
        port.report(queues[0], name, json.dumps(report).encode())


def _flat(fields: dict[str, int]) -> list[str | int]:
    return [one for pair in fields.items() for one in pair]


def pages() -> dict[str, str]:
    """What is asked for: a name → an address."""
    from jobs.models import TaskResult

    failed = TaskResult.objects.filter(state="FAILURE").order_by("-id").values_list("pk", flat=True)
    results, middle = "/admin/jobs/taskresult/", failed[100]
    failures, error = f"{results}?state__exact=FAILURE", "shop.errors.Problem3"
    # The ledger's own time, since a folder that was kept has grown old.
    newest = TaskResult.objects.order_by("-id").values_list("created_at", flat=True)[0]
    hour = f"since={(newest - dt.timedelta(hours=1)).strftime('%Y-%m-%dT%H:%M:%SZ')}"
    oldest = TaskResult.objects.order_by("id").values_list("pk", flat=True)[1000]
    return {
        "dashboard": "/admin/jobs/dashboard/",
        "dashboard, nothing cached": "/admin/jobs/dashboard/",
        "dashboard, a day, nothing cached": "/admin/jobs/dashboard/?range=day",
        "dashboard, a week": "/admin/jobs/dashboard/?range=week",
        "dashboard, a week, nothing cached": "/admin/jobs/dashboard/?range=week",
        "queues": "/admin/jobs/queues/",
        "queue, waiting": "/admin/jobs/queues/queue/queue_0/",
        "queue, waiting, far down": "/admin/jobs/queues/queue/queue_0/?tab=waiting&p=500000",
        "queue, running": "/admin/jobs/queues/queue/queue_0/?tab=running",
        "queue, in flight": "/admin/jobs/queues/queue/queue_0/?tab=in-flight",
        "queue, due": "/admin/jobs/queues/queue/queue_0/?tab=due",
        "results": results,
        "results, failed": failures,
        "results, pending": f"{results}?state__exact=PENDING",
        "results, of a task": f"{results}?task=shop.tasks.task_7",
        "results, failed of a task": f"{failures}&task=shop.tasks.task_3",
        "results, revoked of a task": f"{results}?state__exact=REVOKED&task=shop.tasks.task_3",
        "results, of an error": f"{results}?error_type={error}",
        "results, of an error, no module": f"{results}?error_type=Problem3",
        "results, of an error and task": f"{results}?error_type={error}&task=shop.tasks.task_3",
        "results, of a queue": f"{results}?queue=queue_7",
        "results, of a queue, past hour": f"{results}?queue=queue_7&{hour}",
        "results, of a worker": f"{results}?worker=worker-3",
        "results, long ones": f"{results}?longer=10",
        "results, failed on a queue, past hour": f"{failures}&queue=queue_7&{hour}",
        "results, past 7 days": f"{results}?sent=week",
        "results, an id": f"{results}?q={middle}",
        "results, an id that isn't there": f"{results}?q=01912345-1234-7abc-8abc-0123456789ab",
        "results, the beginning of an id": f"{results}?q={middle[:8]}",
        "results, a task's name": f"{results}?q=task_7",
        "results, an error's text": f"{results}?q=answered+503",
        "results, a text that isn't there": f"{results}?q=nothing+like+it",
        "results, far down": f"{results}?p=older:{oldest}",
        "results, failed, far down": f"{failures}&p=older:{oldest}",
        "result": f"{results}{middle}/change/",
        "errors, an hour": "/admin/jobs/errors/?range=hour",
        "errors, a day": "/admin/jobs/errors/",
        "errors, a week": "/admin/jobs/errors/?range=week",
        "dead letters": "/admin/jobs/deadletters/",
        "dead letters of a queue": "/admin/jobs/deadletters/?queue=queue_0",
        "dead letters of a task": "/admin/jobs/deadletters/?task=shop.tasks.task_3",
        "tasks": "/admin/jobs/tasks/",
        "tasks, nothing cached": "/admin/jobs/tasks/",
        "task": "/admin/jobs/tasks/task/shop.tasks.task_3/",
        "workers": "/admin/jobs/workers/",
        "worker": "/admin/jobs/workers/worker/worker-3@host-3/1/",
        "schedules": "/admin/jobs/schedule/",
    }


def forget() -> None:
    """Forget what this process has read of the broker, as if it had just been started."""
    from jobs.control import attention, metrics, snapshot

    metrics._kept.clear()
    snapshot._shared._value = attention._shared._value = None


class Meter:
    """What a request asks of the servers: times in milliseconds, and how often."""

    def __init__(self) -> None:
        from jobs.broker.connection import Connections

        self.database = self.queries = self.broker = self.trips = 0.0
        exchange = Connections._exchange

        def exchanged(connections: Any, parts: Any) -> Any:
            began = time.perf_counter()
            try:
                return exchange(connections, parts)
            finally:
                self.broker += 1000 * (time.perf_counter() - began)
                self.trips += 1

        Connections._exchange = exchanged  # type: ignore[method-assign, assignment]

    def reset(self) -> None:
        self.database = self.queries = self.broker = self.trips = 0.0

    def __call__(self, execute: Any, *args: Any) -> Any:
        """A wrapper of Django's `connection.execute_wrapper`."""
        began = time.perf_counter()
        try:
            return execute(*args)
        finally:
            self.database += 1000 * (time.perf_counter() - began)
            self.queries += 1


def measure(times: int, only: str) -> dict[str, dict[str, Any]]:
    """Of each page, milliseconds: the whole (wall), this process alone (CPU), and waiting for the
    database and for the broker; how often each was asked; and its size in bytes."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client

    client, meter = Client(), Meter()
    operator, _ = User.objects.get_or_create(username="operator", is_staff=True, is_superuser=True)
    client.force_login(operator)
    figures: dict[str, dict[str, Any]] = {}
    for name, address in pages().items():
        if not any(part in name for part in only.split(",")):
            continue
        seen: dict[str, list[float]] = {}
        gc.collect()
        for _ in range(times + 1):
            if "nothing cached" in name:
                forget()
            meter.reset()
            began, busy = time.perf_counter(), time.process_time()
            with connection.execute_wrapper(meter):
                answer = client.get(address)
            values = {
                "wall": 1000 * (time.perf_counter() - began),
                "cpu": 1000 * (time.process_time() - busy),
                "database": meter.database,
                "broker": meter.broker,
            }
            for key, value in values.items():
                seen.setdefault(key, []).append(value)
        figures[name] = {
            "status": answer.status_code,
            "bytes": len(answer.content),
            "queries": int(meter.queries),
            "trips": int(meter.trips),
        }
        for key, found in seen.items():
            found = sorted(found[1:])  # the first one loads templates
            p95 = found[min(len(found) - 1, int(0.95 * len(found)))]
            figures[name][key] = [round(statistics.median(found), 1), round(p95, 1)]
        print(_line(name, figures[name]), flush=True)
    return figures


def _line(name: str, found: dict[str, Any]) -> str:
    times = [
        f"{found[key][0]:8.1f} {found[key][1]:7.1f}"
        for key in ("wall", "cpu", "database", "broker")
    ]
    counts = f"{found['queries']:>7} {found['trips']:>5} {found['bytes']:>9,} {found['status']:>6}"
    return f"{name:38}{''.join(times)} {counts}"


HEAD = (
    f"{'page (ms, p50 and p95)':38}{'wall':>16}{'CPU':>16}{'database':>16}{'broker':>16}"
    f" {'queries':>7} {'trips':>5} {'bytes':>9} {'status':>6}"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="results in the ledger")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="messages on a queue")
    parser.add_argument("--times", type=int, default=40, help="requests of each page")
    parser.add_argument("--only", default="", help="pages whose name contains this")
    parser.add_argument("--keep", type=Path, help="keep the servers' files here, to use them again")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.keep or stack.enter_context(temporary_folder())
        folder.mkdir(parents=True, exist_ok=True)
        filled = folder / "filled"
        server = stack.enter_context(postgres(folder))
        if filled.exists():
            database = server.uri.replace("/postgres?", "/pages?", 1)
        else:
            (folder / "dump.rdb").unlink(missing_ok=True)
            database = server.fresh("pages")
        dispatcher = stack.enter_context(valkey(folder))
        os.environ |= {
            "DATABASE_URL": database,
            "REDIS_URL": dispatcher.url,
            "SECRET_KEY": "benchmarks",
            "ENV_FILE": "",
            "ALLOWED_HOSTS": "testserver",
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings_pages",
        }
        import django
        import redis

        django.setup()
        register()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        if not filled.exists():
            began = time.monotonic()
            fill(options.rows, options.waiting)
            redis.Redis.from_url(dispatcher.url, socket_timeout=600).save()
            filled.write_text(f"{options.rows} {options.waiting}\n")
            print(f"filled in {time.monotonic() - began:.0f} s", flush=True)
        revive()
        print(HEAD)
        figures = measure(options.times, options.only)
        connections.close_all()
    if options.json:
        options.json.write_text(
            json.dumps({"measure": "pages", "figures": figures}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
