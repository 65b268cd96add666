"""This program: the tasks are in ``benchmarks.tasks``, where the app's discovery finds them."""

import os
import resource
import time
from collections.abc import Sequence

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

import django

django.setup()

from benchmarks.tasks import echo, length, limited, nap, noop, stamp  # noqa: E402 - needs the settings
from jobs import chain, chord, group  # noqa: E402 - likewise


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


def send_stamp(at: int, delay: float | None, queue: str | None = None) -> None:
    stamp.apply_async((at,), countdown=delay, queue=queue)


def send_long() -> None:
    nap.delay()


def round_trip(number: int) -> int:
    answer: int = echo.delay(number).get(timeout=10)
    return answer


def send_later(count: int) -> None:
    """Messages that are due when nobody measures any more."""
    noop.enqueue_many([(0,)] * count, countdown=86_400)


def send_due(numbers: Sequence[int], delay: float) -> None:
    """Messages that are due in a moment."""
    noop.enqueue_many([(number,) for number in numbers], countdown=delay)


def compose(what: str, count: int) -> dict[str, float]:
    """The end is when the ledger holds all of it. ``memory``: how many bytes the process has grown
    by at most while it sent."""
    from jobs.models import TaskResult

    # The first sending of a process imports and connects, which no size changes.
    (chord([noop.s(0)], length.s()) if what == "chord" else chain(noop.si(0), noop.si(0))).delay()
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    if what == "chain":
        calls = chain(*(noop.si(number) for number in range(count)))
    else:
        calls = group(noop.s(number) for number in range(count))
    sent = (calls | length.s() if what == "chord" else calls).apply_async()
    sent_in = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    if what == "group":
        rows, wanted = TaskResult.objects.filter(group_id=sent.id, state="SUCCESS"), count
    else:
        rows, wanted = TaskResult.objects.filter(id=sent.id, state="SUCCESS"), 1
    while rows.count() < wanted:
        # To count the members of a large group takes a while itself.
        time.sleep(max(0.01, count / 100_000) if what == "group" else 0.01)
    return {
        "sent": sent_in,
        "ended": time.perf_counter() - started,
        "sent_cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": (after.ru_maxrss - before.ru_maxrss) * 1024,
    }
