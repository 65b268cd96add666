"""django-q2 with its Redis broker; results are rows of Django's database."""

import os
from collections.abc import Iterable

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_django_q2"
import django

django.setup()

from django_q.tasks import async_task, result  # noqa: E402 - needs the settings

from benchmarks import work  # noqa: E402 - likewise


def prepare() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def send_singly(numbers: Iterable[int]) -> None:
    for number in numbers:
        async_task(work.noop, number)


send_bulk = None


def send_stamp(at: int, delay: float | None) -> None:
    if delay is not None:
        raise NotImplementedError("django-q2 has schedules for this, which it reads every 30 s.")
    async_task(work.stamp, at)


def round_trip(number: int) -> int:
    answer: int = result(async_task(work.echo, number), wait=10_000)
    return answer
