"""BROKER_WAIT_REPLICAS: a send outside a transaction that too few replicas have."""

from __future__ import annotations

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import broker, chord, group, signals, task
from jobs.exceptions import AlreadyQueued, BrokerUnavailable, NotReplicated
from jobs.models import TaskGroup, TaskResult
from tests.tasks import add, echo
from tests.workers import on_redis, work

pytestmark = pytest.mark.django_db(transaction=True)


@task(unique=60, on_conflict="raise")
def only(label: str) -> str:
    return label


@pytest.fixture(autouse=True)
def _alone(broker_url: str, settings: Settings) -> None:
    """The server has no replica."""
    settings.JOBS = {**settings.JOBS, "BROKER_WAIT_REPLICAS": 1, "SOCKET_TIMEOUT": 2.0}


def test_it_is_sent_once_and_says_that_it_is_not_safe() -> None:
    told: list[str] = []
    signals.task_enqueued.connect(lambda message, **_: told.append(message.id), weak=False)
    try:
        with pytest.raises(NotReplicated) as caught:
            add.delay(1, 2)
    finally:
        signals.task_enqueued.receivers.clear()
    assert isinstance(caught.value, BrokerUnavailable)
    assert list(caught.value.ids) == told
    assert on_redis() == (1, 0)
    work()
    assert TaskResult.objects.get(id=told[0]).result == "3"


def test_a_call_in_a_transaction_does_not_wait() -> None:
    with transaction.atomic():
        add.delay(1, 2)
    assert TaskResult.objects.get().published_at is not None


def test_a_unique_call_keeps_its_lock() -> None:
    with pytest.raises(NotReplicated) as caught:
        only.delay("a")
    with pytest.raises(AlreadyQueued) as refused:
        only.delay("a")
    assert [refused.value.task_id] == list(caught.value.ids)


def test_a_chord_is_sent_whole() -> None:
    with pytest.raises(NotReplicated):
        chord([add.s(1, 2), add.s(3, 4)])(echo.s())
    assert TaskGroup.objects.get().size == 2
    work()
    assert TaskResult.objects.get(task="tests.tasks.echo").result == "[3,7]"


def test_a_group_is_sent_whole() -> None:
    with pytest.raises(NotReplicated) as caught:
        group(add.s(n, n) for n in range(3)).apply_async()
    assert len(caught.value.ids) == 3
    assert broker.get().stats("default").waiting == 3
