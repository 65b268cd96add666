"""What a worker's log says: which call wrote a line, wherever it was written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from jobs import Request, task
from jobs.logs import NAMES, JobFilter
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

log = logging.getLogger("tests.logging")


@task
def says() -> None:
    log.warning("hello")


@task
async def async_says() -> None:
    log.warning("hello")


@task
def fails_saying() -> None:
    log.warning("hello")
    raise ValueError("boom")


@task
async def async_fails_saying() -> None:
    log.warning("hello")
    raise ValueError("boom")


@task(batch=5)
def batch_fails(requests: list[Request]) -> None:
    log.warning("hello")
    raise ValueError("boom")


class Kept(logging.Handler):
    """Keeps what each record says of its call, with its text's first word."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[tuple[Any, ...]] = []
        self.addFilter(JobFilter())

    def emit(self, record: logging.LogRecord) -> None:
        about = tuple(record.__dict__[name] for name in NAMES[:4])
        self.found.append((record.getMessage().split()[0], *about))


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    loggers = [log, logging.getLogger("jobs")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize("options", [{}, {"threads": 2}])
def test_a_task_s_own_lines_and_those_about_its_end(kept: Kept, options: dict[str, Any]) -> None:
    for one in (says, async_says):
        sent = one.delay()
        work(**options)
        assert kept.found == [("hello", sent.id, one.name, "default", 1)]
        kept.found.clear()
    for one in (fails_saying, async_fails_saying):
        sent = one.delay()
        work(**options)
        about = (sent.id, one.name, "default", 1)
        assert kept.found == [("hello", *about), ("task", *about)]
        kept.found.clear()


def test_the_ends_of_a_batch_are_told_apart(kept: Kept) -> None:
    with transaction.atomic():
        sent = batch_fails.enqueue_many([()] * 3)
    work()
    hello, *ends = kept.found
    assert hello == ("hello", "-", "-", "-", "-")  # it ran for all of them
    assert {end[1] for end in ends} == {one.id for one in sent}
