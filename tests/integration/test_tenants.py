"""Tenants: a call's own through transactions, attempts, workflows and schedules."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import transaction

from jobs import Task, broker, chain, chord, group, message, task
from jobs.beat.sending import send_now
from jobs.broker.base import Outgoing
from jobs.broker.tenants import tenant_of
from jobs.ledger import publish
from jobs.models import Schedule, TaskResult
from jobs.timing import clock
from tests.models import Run
from tests.tasks import add, trace_for
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(bind=True, fair_by="tenant")
def tells(self: Task[..., Any], _before: Any = None, tenant: Any = None) -> str:
    """Its tenant, at the second attempt."""
    if not self.request.retries:
        self.retry(countdown=0)
    return self.request.fair


@task(fair_by=lambda number: 1 // number)
def fragile(number: int) -> None: ...


def order() -> list[str]:
    return list(Run.objects.order_by("pk").values_list("label", flat=True))


def waiting() -> list[bytes]:
    return [tenant_of(found.raw) for found in broker.get().peek("default", 0, 100)]


def test_ten_calls_are_not_held_up_by_a_thousand() -> None:
    trace_for.enqueue_many((f"big {n}", "big") for n in range(100))
    trace_for.enqueue_many((f"small {n}", "small") for n in range(3))
    work()
    assert [label for label in order()[:12] if label.startswith("small")] == [
        "small 0",
        "small 1",
        "small 2",
    ]


def test_in_a_transaction_and_by_the_relay() -> None:
    with transaction.atomic():
        sent = tells.delay(tenant="acme")
    assert waiting() == [b"acme"]
    assert message.decode(bytes(TaskResult.objects.get().message), "default").fair == "acme"
    work()
    assert sent.get(timeout=1) == "acme"
    with transaction.atomic():
        lost = tells.delay(tenant="late")
    # As if the process had died after the commit, before it pushed the message.
    (found,) = broker.get().browse("default", due=False)
    assert broker.get().pick("default", "crash", 1, 60.0, found)
    TaskResult.objects.filter(pk=lost.id).update(published_at=None)
    publish.relay(clock.now() + dt.timedelta(hours=1))
    assert waiting() == [b"late"]
    work()
    assert lost.get(timeout=1) == "late"


def test_calls_that_follow_have_their_own() -> None:
    ended = chain(add.si(1, 2), tells.si(None, "first"), tells.s("second")).delay()
    work()
    assert ended.get(timeout=1) == "second"
    assert ended.parent is not None
    assert ended.parent.get(timeout=1) == "first"


def test_groups_and_chords() -> None:
    of = chord([tells.si(None, "a"), tells.si(None, "b")], tells.s("body")).delay()
    assert waiting() == [b"a", b"b"]
    named = group(tells.si(), tells.si(None, "c")).apply_async(fair="given")
    work()
    assert of.get(timeout=1) == "body"
    assert named.get(timeout=1) == ["given", "given"]


def test_a_function_that_fails_in_a_worker_holds_nothing_up(caplog: Any) -> None:
    ended = chain(add.s(0, 0), fragile.s()).delay()
    work()
    assert ended.state == "SUCCESS"
    assert "is sent as nobody's" in caplog.text


def test_a_schedule(caplog: Any) -> None:
    every = dt.timedelta(minutes=1)
    send_now(Schedule.objects.create(name="s", task=tells.name, args=[1, "acme"], interval=every))
    send_now(Schedule.objects.create(name="f", task=fragile.name, args=[0], interval=every))
    assert sorted(waiting()) == [b"", b"acme"]
    assert "is sent as nobody's" in caplog.text


def test_what_was_sent_before_the_upgrade_runs_beside_it() -> None:
    """An old sender knows no tenants: its messages are plain ones."""
    trace_for.enqueue_many((f"new {n}", "acme") for n in range(2))
    old = trace_for.message(("old", "acme"), {}, fair="")
    broker.get().push([Outgoing("default", message.encode(old))])
    work()
    assert sorted(order()) == ["new 0", "new 1", "old"]
