"""django-tasks-db: messages and results are rows of Django's database."""

import os
import time
from collections.abc import Iterable
from datetime import timedelta

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_django_tasks"
import django

django.setup()

from django.utils import timezone  # noqa: E402 - needs the settings

from benchmarks.tasks_django import echo, noop, stamp  # noqa: E402 - likewise


def prepare() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def send_singly(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.enqueue(number)


send_bulk = None


def send_stamp(at: int, delay: float | None) -> None:
    task = stamp
    if delay is not None:
        task = stamp.using(run_after=timezone.now() + timedelta(seconds=delay))
    task.enqueue(at)


def round_trip(number: int) -> int:
    sent = echo.enqueue(number)
    deadline = time.monotonic() + 10
    while not sent.is_finished and time.monotonic() < deadline:
        time.sleep(0.005)
        sent.refresh()
    answer: int = sent.return_value
    return answer
