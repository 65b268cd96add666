"""This program: the tasks are in ``benchmarks.tasks``, where the app's discovery finds them."""

import os
from collections.abc import Sequence

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

import django

django.setup()

from benchmarks.tasks import echo, limited, noop, stamp  # noqa: E402 - needs the settings


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
