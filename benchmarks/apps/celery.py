"""Celery as its documentation sets it up for Redis, with JSON messages."""

import os
from collections.abc import Iterable

from celery import Celery, group

from benchmarks import work

RESULTS = os.environ["BENCH_RESULTS"]
BACKENDS = {"": None, "redis": os.environ["BENCH_REDIS_URL"]}

if RESULTS not in BACKENDS:
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_celery"
    import django

    django.setup()

app = Celery("bench", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(
    task_default_queue="bench",
    task_ignore_result=not RESULTS,
    result_backend=BACKENDS.get(RESULTS, "django-db"),
    broker_connection_retry_on_startup=True,
)

if os.environ["BENCH_KEEP_CONNECTIONS"]:
    # Its worker closes the database connection around every task, whatever CONN_MAX_AGE says,
    # unless told after how many tasks to do so.
    app.conf.CELERY_DB_REUSE_MAX = 1_000_000

noop = app.task(name="noop")(work.noop)
echo = app.task(name="echo")(work.echo)
stamp = app.task(name="stamp", ignore_result=True)(work.stamp)


def prepare() -> None:
    """Make the tables of django-celery-results."""
    if RESULTS not in BACKENDS:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)


def send_singly(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.delay(number)


def send_bulk(numbers: Iterable[int]) -> None:
    group(noop.s(number) for number in numbers).apply_async()


def send_stamp(at: int, delay: float | None) -> None:
    stamp.apply_async((at,), countdown=delay)


def round_trip(number: int) -> int:
    # The default interval of 0.5 s applies to the Django database alone, which has to be polled.
    answer: int = echo.delay(number).get(timeout=10)
    return answer
