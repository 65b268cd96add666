"""The numbers that a real worker writes, compared with the rows of the ledger."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import Counter
from typing import Any

import pytest
import redis
from django.db import transaction
from pytest_django import Settings

from jobs import broker, control, task
from jobs.broker.base import Outgoing
from jobs.control import metrics
from jobs.control.metrics import SUCCEEDED, Numbers, Range
from jobs.models import TaskAttempt, TaskResult
from jobs.worker.record.metering import Meter
from jobs.worker.record.outcome import Done
from tests.services import Valkey
from tests.tasks import add, async_add, collect, fail, light_trace, once, quiet_trace, trace
from tests.workers import put, work

pytestmark = pytest.mark.django_db(transaction=True)


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task(atomic=True)
def atomic_add(a: int, b: int) -> int:
    return a + b


def day(queues: list[str] | None = None) -> Numbers:
    return metrics.total(Range.DAY, queues)


def ends(numbers: Numbers) -> tuple[int, int, int, int]:
    return (numbers.succeeded, numbers.failed, numbers.retried, numbers.revoked)


def in_ledger(queue: str | None = None) -> tuple[int, int, int, int]:
    """The same, counted from rows."""
    rows = TaskResult.objects.all() if queue is None else TaskResult.objects.filter(queue=queue)
    states = Counter(rows.values_list("state", flat=True))
    attempts = TaskAttempt.objects.filter(result__in=rows).count()
    return (states["SUCCESS"], states["FAILURE"], attempts, states["REVOKED"])


def send_all() -> int:
    """Calls of every kind; how many."""
    for n in range(40):
        add.delay(n, 1)
    with transaction.atomic():
        for n in range(7):
            trace.delay(str(n))
    for text in ("a", "b", "c"):
        fail.delay(text)
    once.delay("x", "fails twice")
    for n in range(5):
        async_add.apply_async((n, 1), queue="low")
        atomic_add.delay(n, 1)
    collect.enqueue_many([(one,) for one in ("a", "b", "fail", "retry", "reject")])
    revoked = trace.apply_async(("never",), queue="high")
    control.revoke(revoked.id)
    trace.apply_async(("late",), expires=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    trace.apply_async(("soon",), countdown=0.005)
    return 40 + 7 + 3 + 1 + 5 + 5 + 5 + 1 + 1 + 1


@pytest.mark.parametrize("options", [{}, {"threads": 3}])
def test_the_numbers_are_those_of_the_ledger(broker_url: str, options: dict[str, Any]) -> None:
    sent = send_all()
    work(**options)
    while broker.get().stats("default").due:
        work(**options)
    assert ends(day()) == in_ledger()
    assert day().sent == sent
    for queue in ("high", "default", "low"):
        assert ends(day([queue])) == in_ledger(queue)
    by_task = metrics.by_task(Range.DAY)
    for name in TaskResult.objects.order_by().values_list("task", flat=True).distinct():
        states = Counter(TaskResult.objects.filter(task=name).values_list("state", flat=True))
        found = by_task[name]
        wanted = (states["SUCCESS"], states["FAILURE"], states["REVOKED"])
        assert (found.succeeded, found.failed, found.revoked) == wanted, name


def test_calls_without_a_row_are_counted(broker_url: str) -> None:
    quiet_trace.delay("a")
    light_trace.apply_async(("b",), ignore_result=True)
    work()
    assert TaskResult.objects.count() == 0
    assert (day().sent, day().succeeded) == (2, 2)


def test_a_message_that_nobody_can_read_is_a_failure(broker_url: str) -> None:
    put(b"not json")
    work()
    assert ends(day()) == (0, 1, 0, 0)
    assert metrics.by_task(Range.DAY)[metrics.OTHER].failed == 1


def test_how_long_a_call_ran_and_waited(broker_url: str) -> None:
    nap.delay(0.05)
    time.sleep(0.1)
    work()
    (row,) = TaskResult.objects.all()
    assert row.started_at is not None
    assert row.finished_at is not None
    ran = (row.finished_at - row.started_at).total_seconds()
    waited = (row.started_at - row.created_at).total_seconds()
    found = day()
    assert (found.run.total, found.wait.total) == (1, 1)
    assert found.run.seconds == pytest.approx(ran, abs=0.01)
    assert found.wait.seconds == pytest.approx(waited, abs=0.01)
    for histogram, true in ((found.run, ran), (found.wait, waited)):
        middle = histogram.percentile(0.5)
        assert middle is not None
        assert true / 1.2 - 0.01 <= middle <= true * 1.2 + 0.01


def test_a_call_that_is_due_later_waits_from_then_on(broker_url: str) -> None:
    nap.apply_async((0,), countdown=0.3)
    time.sleep(0.3)
    work()
    while broker.get().stats("default").due:
        work()
    assert day().wait.total == 1
    (row,) = TaskResult.objects.all()
    assert row.started_at is not None
    assert row.eta is not None
    late = (row.started_at - row.eta).total_seconds()
    assert day().wait.seconds == pytest.approx(late, abs=0.01)


def test_every_attempt_has_a_run(broker_url: str) -> None:
    once.delay("x", "fails twice")
    work()
    while broker.get().stats("default").due:
        work()
    found = day()
    assert ends(found) == (0, 1, 1, 0)
    assert (found.run.total, found.wait.total) == (2, 2)


def test_many_calls_of_one_batch_are_all_counted(broker_url: str) -> None:
    quiet_trace.enqueue_many([(str(n),) for n in range(700)])
    work()
    found = day()
    assert (found.sent, found.succeeded) == (700, 700)
    # Of large batches only some are measured, and each of these counts for several.
    assert found.run.total == pytest.approx(700, rel=0.3)


def test_turned_off(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "METRICS": False}
    add.delay(1, 2)
    work()
    assert (day().sent, day().succeeded) == (0, 0)
    with redis.Redis.from_url(broker_url) as client:
        assert [key for key in client.keys("*") if b":metrics:" in key] == []


def test_a_damaged_key_hurts_no_task_and_no_other_numbers(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        for key in ("sent", "ever:0"):
            client.set(f"{{default}}:metrics:{key}", "somebody else's")
    result = add.delay(1, 2)
    work()
    assert result.get(timeout=5) == 3
    assert day().succeeded == 1


def test_an_outage_is_told_once(own_valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter()

    def send(queue: str = "default") -> None:
        meter.add([Done(queue, 1, counts=SUCCEEDED)])
        meter.send()

    with caplog.at_level(logging.WARNING):
        own_valkey.kill()
        send()
        send()
        assert caplog.text.count("numbers for the metrics are lost") == 1
        own_valkey.start()
        send()
        send()
    assert caplog.text.count("numbers for the metrics are sent again") == 1
    assert caplog.text.count("numbers for the metrics are lost") == 1
    assert day().succeeded == 2
    broker.get().close()


def test_it_sends_once_a_second(broker_url: str) -> None:
    meter = Meter()
    now = time.monotonic()
    for _ in range(3):
        meter.add([Done("default", 1, counts=SUCCEEDED)])
        meter.send(now)
        assert day().succeeded == 1
    assert meter.pending
    meter.send()
    assert day().succeeded == 3
    assert not meter.pending


def test_numbers_need_no_declared_queue(broker_url: str) -> None:
    broker.get().push([Outgoing("unknown", b"a")])
    assert day(["unknown"]).sent == 1
