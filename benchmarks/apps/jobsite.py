"""This program: the tasks are in ``benchmarks.tasks``, where the app's discovery finds them."""

import os
import time
from collections.abc import Sequence

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

import django

django.setup()

from benchmarks.tasks import echo, length, limited, noop, stamp  # noqa: E402 - needs the settings
from jobs import group  # noqa: E402 - likewise


def prepare() -> None:
    """Make the tables."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def send_singly(numbers: Sequence[int]) -> None:
    for number in numbers:
        noop.delay(number)


def send_bulk(numbers: Sequence[int]) -> None:
    noop.enqueue_many([(number,) for number in numbers])


def send_limited(count: int) -> None:
    limited.enqueue_many([(number,) for number in range(count)])


def send_stamp(at: int, delay: float | None) -> None:
    stamp.apply_async((at,), countdown=delay)


def round_trip(number: int) -> int:
    answer: int = echo.delay(number).get(timeout=10)
    return answer


def compose(what: str, count: int) -> dict[str, float]:
    """The end is when the ledger holds all of it."""
    from jobs.models import TaskResult

    calls = group(noop.s(number) for number in range(count))
    started = time.perf_counter()
    sent = (calls if what == "group" else calls | length.s()).apply_async()
    sent_in = time.perf_counter() - started
    if what == "group":
        rows, wanted = TaskResult.objects.filter(group_id=sent.id, state="SUCCESS"), count
    else:
        rows, wanted = TaskResult.objects.filter(id=sent.id, state="SUCCESS"), 1
    while rows.count() < wanted:
        time.sleep(0.01)
    return {"sent": sent_in, "ended": time.perf_counter() - started}
