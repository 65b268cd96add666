"""Signals before a call is sent, after each attempt, at a revocation and at a dead letter."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.dispatch import Signal

from jobs import Task, chain, chord, control, group, signals, task
from jobs.exceptions import Ignore, NotSerializable, Reject
from jobs.models import TaskResult
from jobs.testing import in_memory, run_jobs
from tests.tasks import add, async_add, async_fail, collect, echo, fail
from tests.workers import dead_letters, put, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

tenant = contextvars.ContextVar("tenant", default="")


@task(bind=True)
def whose(self: Task[..., Any], *_: Any) -> Any:
    return self.request.headers.get("tenant")


@task(bind=True)
async def async_whose(self: Task[..., Any], *_: Any) -> Any:
    return self.request.headers.get("tenant")


@task(bind=True)
def whose_again(self: Task[..., Any]) -> Any:
    if not self.request.retries:
        self.retry(countdown=0)
    return self.request.headers.get("tenant")


@task
def whose_sent_here() -> str:
    return whose.delay().id


@task(bind=True)
def replaced_by_whose(self: Task[..., Any]) -> Any:
    return self.replace(whose.s())


@task
def leaves(how: str) -> None:
    raise {"ignore": Ignore, "reject": Reject}[how]()


class Heard:
    """What was announced: the signals' arguments, in order."""

    def __init__(self) -> None:
        self.of: dict[Signal, list[dict[str, Any]]] = {}

    def __call__(self, signal: Signal, sender: Any, **named: Any) -> None:
        self.of.setdefault(signal, []).append({"sender": sender, **named})

    def values(self, signal: Signal, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(one[name] for name in names) for one in self.of.get(signal, [])]


@pytest.fixture
def heard() -> Iterator[Heard]:
    found = Heard()
    listened = [signals.task_finished, signals.task_revoked, signals.task_dead_lettered]
    for signal in listened:
        signal.connect(found)
    yield found
    for signal in listened:
        signal.disconnect(found)


@pytest.fixture
def tenants() -> Iterator[None]:
    """As docs/reference/signals.md shows it."""

    def add_tenant(message: Any, **_: Any) -> None:
        message.headers.setdefault("tenant", tenant.get())

    def take_tenant(message: Any, **_: Any) -> None:
        tenant.set(message.headers.get("tenant", ""))

    signals.task_sending.connect(add_tenant)
    signals.task_started.connect(take_tenant)
    before = tenant.set("acme")
    yield
    tenant.reset(before)
    signals.task_sending.disconnect(add_tenant)
    signals.task_started.disconnect(take_tenant)


# -------------------------------------------------------------------------------- task_sending


@pytest.mark.usefixtures("tenants")
@pytest.mark.parametrize("atomic", [False, True])
def test_headers_that_are_added_travel_with_every_call(atomic: bool) -> None:
    calls = [
        whose.s(),
        whose_again.s(),
        replaced_by_whose.s(),
        chain(echo.s(1), whose.s()),
        chain(async_add.s(1, 2), async_whose.s(), whose.s()),
        chord([echo.s(1), async_add.s(2, 3)], whose.s()),
        chord(group(add.s(1, 2), echo.s(1)), whose.s() | async_whose.s()),
    ]
    if atomic:
        with transaction.atomic():
            sent = [call.delay() for call in calls]
    else:
        sent = [call.delay() for call in calls]
    own = whose.apply_async(headers={"tenant": "other"})
    # What follows has the header from its call, not from the process that runs it.
    before = tenant.set("nobody")
    work()
    tenant.reset(before)
    assert [one.get(timeout=0) for one in sent] == ["acme"] * len(calls)
    assert own.get(timeout=0) == "other"


@pytest.mark.usefixtures("tenants")
def test_of_a_call_that_a_task_sends() -> None:
    sent = whose_sent_here.delay()
    work()
    assert TaskResult.objects.get(id=sent.get(timeout=0)).result == '"acme"'


def test_calls_that_are_sent_together_have_headers_of_their_own() -> None:
    def number(message: Any, **_: Any) -> None:
        message.headers["tenant"] = message.id

    signals.task_sending.connect(number)
    try:
        sent = whose.enqueue_many([()] * 3, headers={"x": 1})
    finally:
        signals.task_sending.disconnect(number)
    work()
    assert [one.get(timeout=0) for one in sent] == [one.id for one in sent]


def test_headers_that_are_no_json_fail_the_sending() -> None:
    def spoil(message: Any, **_: Any) -> None:
        message.headers["tenant"] = object()

    signals.task_sending.connect(spoil)
    try:
        with pytest.raises(NotSerializable):
            whose.delay()
    finally:
        signals.task_sending.disconnect(spoil)


# ------------------------------------------------------------------------------- task_finished


@pytest.mark.parametrize("options", [{}, {"threads": 2}])
def test_each_attempt_is_finished_whatever_came_of_it(
    heard: Heard, options: dict[str, Any]
) -> None:
    expected = []
    for call, *states in [
        (add.s(1, 2), "SUCCESS"),
        (async_add.s(1, 2), "SUCCESS"),
        (fail.s("boom"), "FAILURE"),
        (async_fail.s("boom"), "FAILURE"),
        (whose_again.s(), "RETRY", "SUCCESS"),
        (leaves.s("ignore"), "REVOKED"),
        (leaves.s("reject"), "FAILURE"),
    ]:
        sent = call.delay()
        work(**options)
        expected += [(sent.id, state) for state in states]
    found = heard.of[signals.task_finished]
    assert [(one["message"].id, one["state"]) for one in found] == expected
    assert all(one["runtime"] >= 0 and one["worker"] for one in found)


def test_a_call_that_goes_on_as_another_has_no_state(heard: Heard) -> None:
    sent = replaced_by_whose.delay()
    work()
    assert heard.values(signals.task_finished, "state")[0] == ("",)
    assert heard.of[signals.task_finished][0]["message"].id == sent.id


def test_each_call_of_a_batch_is_finished(heard: Heard) -> None:
    sent = collect.enqueue_many([(n,) for n in range(3)])
    work()
    found = heard.of[signals.task_finished]
    assert {one["message"].id for one in found} == {one.id for one in sent}


# ------------------------------------------------- task_revoked and task_dead_lettered


def test_a_revoked_call_is_announced_with_the_reason(heard: Heard) -> None:
    revoked, expired = add.delay(1, 2), add.apply_async((1, 2), expires=0.001)
    control.revoke(revoked.id)
    ignored = leaves.delay("ignore")
    work()
    found = {one["message"].id: one for one in heard.of[signals.task_revoked]}
    assert found.keys() == {revoked.id, expired.id, ignored.id}
    assert found[revoked.id]["reason"] == "revoked"
    assert found[expired.id]["reason"] == "expired"
    assert found[revoked.id]["sender"] is add
    assert signals.task_dead_lettered not in heard.of


def test_a_dead_letter_is_announced_with_the_reason(heard: Heard) -> None:
    unknown, rejected = put_message(task="gone"), leaves.delay("reject").id
    put(b"not json")
    work()
    assert len(dead_letters()) == 3
    found = heard.of[signals.task_dead_lettered]
    by_id = {one["message"].id if one["message"] else "": one for one in found}
    assert by_id.keys() == {unknown, rejected, ""}
    assert by_id[unknown]["reason"].startswith("UnknownTask")
    assert by_id[unknown]["sender"] == "gone"
    assert by_id[rejected]["sender"] is leaves
    assert all(one["queue"] == "default" and one["worker"] for one in found)


def test_what_a_receiver_does_there_does_not_disturb_the_recorder(heard: Heard) -> None:
    def leave_open(**_: Any) -> None:
        transaction.atomic().__enter__()
        raise SystemExit

    signals.task_dead_lettered.connect(leave_open)
    try:
        put(b"not json")
        good = add.delay(1, 2)
        work()
    finally:
        signals.task_dead_lettered.disconnect(leave_open)
    assert good.get(timeout=0) == 3
    assert len(dead_letters()) == 1


@pytest.mark.usefixtures("tenants")
def test_they_are_sent_in_tests_of_a_project_as_well(heard: Heard) -> None:
    with in_memory(), transaction.atomic():
        leaves.delay("reject")
        followed = (echo.s(1) | whose.s()).delay()
        run_jobs(propagate=False)
        assert followed.get(timeout=0) == "acme"
    assert len(heard.of[signals.task_dead_lettered]) == 1
