"""Copies of one call within one claim, or beside the one that runs: it runs once."""

from __future__ import annotations

import time

import pytest

from jobs import broker, message
from jobs.broker.base import Claim
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.claim import admission
from jobs.worker.claim.admission import Answer
from jobs.worker.record.outcome import Delivery, Later, Run
from tests.models import Run as Ran
from tests.tasks import quiet_trace, trace
from tests.workers import on_redis, put, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def copies(name: str, count: int) -> list[Delivery]:
    """Of one call, the first as it was sent and the others marked as redelivered."""
    put_message(task=name, args=["x"])
    ((_, raw),) = broker.get().claim("default", "w", 1, 1, 60).messages
    marked = message.mark_redelivered(raw, crashed=False)[0]
    made = []
    for number in range(1, count + 1):
        one = admission.prepare(
            "default", number, raw if number == 1 else marked, worker="w", now=time.time()
        )
        assert isinstance(one, Delivery)
        made.append(one)
    return made


def admitted(deliveries: list[Delivery], *here: str) -> Answer:
    run = Run("w", time.time())
    return admission.admit("default", Claim([], None), deliveries, run, lambda: set(here))


def test_of_copies_in_one_claim_one_runs_and_the_others_come_again() -> None:
    deliveries = copies(trace.name, 4)
    answer = admitted(deliveries)
    assert answer.deliveries == deliveries[:1]
    assert {type(o) for o in answer.outcomes} == {Later}
    assert [o.number for o in answer.outcomes] == [2, 3, 4]
    assert all(o.due > time.time() for o in answer.outcomes)


def test_a_copy_of_what_is_here_comes_again() -> None:
    _, copy = copies(trace.name, 2)
    assert admitted([copy]).deliveries == [copy]
    assert not admitted([copy], copy.message.id).deliveries


def test_what_leaves_no_row_is_not_told_from_its_copies() -> None:
    deliveries = copies(quiet_trace.name, 2)
    assert admitted(deliveries, deliveries[0].message.id).deliveries == deliveries


def test_ten_copies_have_one_effect_and_are_gone() -> None:
    put_message(task=trace.name, args=["x"])
    ((number, raw),) = broker.get().claim("default", "x", 1, 1, 60).messages
    broker.get().ack("default", "x", [number])
    for _ in range(10):
        put(message.mark_redelivered(raw, crashed=False)[0])
    ends = time.monotonic() + 30
    while on_redis() != (0, 0) or broker.get().stats("default").due:
        assert time.monotonic() < ends
        work()
    assert Ran.objects.count() == 1
    assert TaskResult.objects.get().state == State.SUCCESS
