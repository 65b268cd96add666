"""Tests that capture what is done at a commit get what was sent, and each block its own."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase

from jobs import broker
from jobs.ledger import publish
from jobs.models import Schedule
from jobs.models.schedules import rules_changed
from tests.tasks import add
from tests.workers import on_redis, rolled_back

pytestmark = pytest.mark.django_db

capture = TestCase.captureOnCommitCallbacks


@pytest.fixture(autouse=True)
def _broker(broker_url: str) -> None:
    """An empty one."""


def waiting() -> int:
    return on_redis()[0]


def test_each_block_has_its_own() -> None:
    add.delay(0, 0)
    with capture(execute=True) as first:
        add.delay(1, 1)
        add.delay(2, 2)
    assert waiting() == 2
    with capture(execute=True) as second:
        add.delay(3, 3)
    assert (len(first), len(second), waiting()) == (2, 1, 3)


def test_nothing_of_a_later_block_goes_with_an_earlier_one() -> None:
    with capture() as first:
        add.delay(1, 1)
    with capture() as second:
        add.delay(2, 2)
        add.delay(3, 3)
    for hook in first:
        hook()
    assert waiting() == 1
    for hook in second:
        hook()
        hook()  # once is enough
    assert waiting() == 3


def test_blocks_within_blocks() -> None:
    with capture(execute=True) as outer:
        add.delay(1, 1)
        with capture(execute=True) as inner:
            add.delay(2, 2)
        assert (len(inner), waiting()) == (1, 1)
        add.delay(3, 3)
    assert (len(outer), waiting()) == (3, 3)


def test_what_hooks_send_is_captured_as_well() -> None:
    with capture(execute=True) as hooks:
        transaction.on_commit(lambda: add.delay(1, 1) and None)
    assert (len(hooks), waiting()) == (2, 1)


def test_after_the_savepoint_of_a_set_up(django_capture_on_commit_callbacks: Any) -> None:
    with transaction.atomic():
        add.delay(0, 0)
    with django_capture_on_commit_callbacks(execute=True) as hooks:
        with rolled_back():
            add.delay(1, 1)
        with transaction.atomic():
            add.delay(2, 2)
    assert (len(hooks), waiting()) == (1, 1)


def test_what_is_sent_once_a_transaction() -> None:
    """As triggers send (`Task.on`)."""

    def save() -> bool:
        return publish.send((add.message((1, 1), {}),), once="row 1")

    assert save()
    assert not save()
    with capture(execute=True):
        assert not save()  # the one that waits already goes now
    assert waiting() == 1
    with capture(execute=True):
        assert save()
        assert not save()
    assert waiting() == 2


def test_schedules() -> None:
    told: list[str] = []

    def listen(*, using: str, **_: Any) -> None:
        told.append(using)

    rules_changed.connect(listen)
    try:
        schedule = Schedule.objects.create(name="x", task="tests.tasks.add", crontab="* * * * *")
        for n in range(2):
            with capture(execute=True) as hooks:
                schedule.crontab = f"{n} * * * *"
                schedule.save()
            assert hooks
        assert told == ["default"] * 2
    finally:
        rules_changed.disconnect(listen)


@pytest.mark.django_db(transaction=True)
def test_a_commit_tells_of_many_schedules_once() -> None:
    told: list[str] = []

    def listen(*, using: str, **_: Any) -> None:
        told.append(using)

    rules_changed.connect(listen)
    try:
        with transaction.atomic():
            for n in range(5):
                Schedule.objects.create(name=str(n), task="tests.tasks.add", crontab="* * * * *")
        assert told == ["default"]
    finally:
        rules_changed.disconnect(listen)


@pytest.mark.django_db(transaction=True)
def test_a_commit_of_very_many_calls_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(broker.get(), "push", lambda messages: counts.append(len(list(messages))))
    with transaction.atomic():
        for _ in range(2_000):
            add.delay(1, 1)
        start = time.monotonic()
        hooks = len(connection.run_on_commit)
    assert (counts, hooks) == ([2_000], 2_000)
    assert time.monotonic() - start < 2
