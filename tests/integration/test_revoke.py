"""Revoked calls end as REVOKED, wherever they wait."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import broker, control
from jobs.exceptions import TaskRevoked
from jobs.models import TaskResult
from jobs.states import State
from tests.integration.test_retries import succeeds_at
from tests.models import Run
from tests.services import Valkey, wait_for
from tests.tasks import async_add, fail, trace
from tests.workers import dead_letters, hasten, on_redis, work

pytestmark = pytest.mark.django_db(transaction=True)

on_broker = pytest.mark.usefixtures("broker_url")


def row_of(result: Any) -> TaskResult:
    return TaskResult.objects.get(id=result.id)


def test_one_that_is_due_in_thousands_of_years(broker_url: str) -> None:
    control.revoke("never", remember=8_000 * 366 * 86_400.0)
    assert [one.id for one in control.inspect.revoked()] == ["never"]
    assert control.inspect.revoked(count=-1) == []


def is_revoked(result: Any) -> None:
    row = row_of(result)
    assert (row.state, row.error) == (State.REVOKED, "revoked")
    with pytest.raises(TaskRevoked, match="revoked"):
        result.get(timeout=0)
    assert (on_redis(), dead_letters()) == ((0, 0), [])


@on_broker
@pytest.mark.parametrize("terminate", [False, True])
def test_one_that_waits(terminate: bool) -> None:
    other, result, last = (trace.delay(label) for label in ("first", "revoked", "last"))
    asynchronous = async_add.delay(1, 2)
    control.revoke(result.id, terminate=terminate)
    control.revoke(asynchronous.id)
    work()
    is_revoked(result)
    is_revoked(asynchronous)
    assert list(Run.objects.values_list("label", flat=True)) == ["first", "last"]
    assert [row_of(one).state for one in (other, last)] == [State.SUCCESS] * 2


@on_broker
def test_through_its_handle() -> None:
    result = trace.delay("revoked")
    result.revoke()
    work()
    is_revoked(result)


@on_broker
def test_one_that_is_due_later() -> None:
    result = trace.apply_async(("later",), countdown=600, queue="low")
    control.revoke(result.id)
    work()
    assert broker.get().stats("low").due == 1
    hasten("low")
    work()
    is_revoked(result)


@on_broker
def test_one_of_the_ledger_that_is_due_later_ends_soon() -> None:
    with transaction.atomic():
        result = trace.apply_async(("later",), countdown=600, queue="low")
        other = trace.apply_async(("other",), countdown=600, queue="low")
    control.revoke(result.id)
    work()
    assert (row_of(result).state, row_of(result).error) == (State.REVOKED, "revoked")
    assert row_of(other).state == State.PENDING
    assert broker.get().stats("low").due == 1
    assert Run.objects.count() == 0


@on_broker
def test_one_that_waits_for_another_attempt_ends_soon() -> None:
    result = succeeds_at.delay(2, countdown=600)
    work()
    control.revoke(result.id)
    work()
    is_revoked(result)
    assert row_of(result).failed_attempts.count() == 1


@on_broker
def test_it_is_revoked_where_the_ledger_can_not_be_asked() -> None:
    result = trace.apply_async(("later",), countdown=600)

    async def revoke() -> None:
        control.revoke(result.id)

    asyncio.run(revoke())
    assert broker.get().revoked("default", [result.id])[0]


@on_broker
def test_one_that_waits_for_another_attempt() -> None:
    result = succeeds_at.delay(2, countdown=600)
    work()
    assert row_of(result).state == State.RETRY
    control.revoke(result.id)
    hasten()
    work()
    is_revoked(result)
    assert row_of(result).failed_attempts.count() == 1


@on_broker
def test_one_that_ignores_its_result_has_no_row() -> None:
    result = trace.apply_async(("quiet",), ignore_result=True)
    with transaction.atomic():
        in_ledger = trace.apply_async(("quiet",), ignore_result=True)
    for one in (result, in_ledger):
        control.revoke(one.id)
    work()
    assert Run.objects.count() == 0
    assert list(TaskResult.objects.values_list("id", "state")) == [(in_ledger.id, State.REVOKED)]


@on_broker
def test_an_unknown_id_and_one_that_has_ended() -> None:
    result = trace.delay("ran")
    work()
    control.revoke(result.id)
    control.revoke("nobody's")
    other = trace.delay("other")
    work()
    assert [row_of(one).state for one in (result, other)] == [State.SUCCESS] * 2


@on_broker
def test_it_is_forgotten_in_time() -> None:
    result = trace.delay("not any more")
    control.revoke(result.id, remember=0.05)
    wait_for(lambda: not broker.get().revoked("default", [result.id])[0], what="its end")
    work()
    assert row_of(result).state == State.SUCCESS


@on_broker
def test_revoked_and_run_again_by_an_operator() -> None:
    result = trace.delay("at last")
    control.revoke(result.id)
    work()
    is_revoked(result)
    assert control.retry(result.id) is True
    assert row_of(result).state == State.PENDING
    work()
    assert row_of(result).state == State.SUCCESS
    assert list(Run.objects.values_list("label", flat=True)) == ["at last"]


def test_it_survives_a_restart_of_the_server(own_valkey: Valkey) -> None:
    result = trace.apply_async(("revoked",), queue="low")
    control.revoke(result.id)
    own_valkey.restart()
    work()
    is_revoked(result)


def test_in_memory_as_well(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "memory://"}
    result, other = trace.delay("revoked"), trace.delay("other")
    control.revoke(result.id)
    work()
    is_revoked(result)
    assert row_of(other).state == State.SUCCESS


@on_broker
@pytest.mark.parametrize("wrong", ["", 7, None, "a\0b", "\ud800", "x" * 256])
def test_what_is_no_id(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="The id of a call"):
        control.revoke(wrong)
    assert control.inspect.revoked() == []
    known = uuid.uuid4()
    control.revoke(known)  # type: ignore[arg-type]  # like AsyncResult
    assert [one.id for one in control.inspect.revoked()] == [str(known)]


@on_broker
@pytest.mark.parametrize("wrong", ["60", None, float("nan"), float("inf"), 1e300, True])
def test_a_time_that_is_no_number_of_seconds(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="remember must be"):
        control.revoke("an-id", remember=wrong)
    with pytest.raises((TypeError, ValueError), match="remember must be"):
        control.revoke_by_stamped_headers({"a": "x"}, remember=wrong)
    control.revoke("another", remember=60)  # nothing of it is left to be in the way
    assert [one.id for one in control.inspect.revoked()] == ["another"]


# ------------------------------------------------------------- an operator's second chance


@on_broker
def test_run_again_with_all_its_attempts() -> None:
    result = fail.delay("wrong")
    work()
    assert control.retry(result.id) is True
    row = row_of(result)
    assert (row.state, row.attempts, row.error, row.traceback) == (State.PENDING, 1, "", "")
    work()
    assert (row_of(result).state, row_of(result).attempts) == (State.FAILURE, 2)


@on_broker
def test_what_did_not_fail_is_not_run_again() -> None:
    result = trace.delay("once")
    assert control.retry(result.id) is False  # it has no row yet
    work()
    assert control.retry(result.id) is False
    assert control.retry("nobody's") is False
    work()
    assert Run.objects.count() == 1


@on_broker
def test_run_again_when_that_is_committed() -> None:
    result = fail.delay("wrong")
    work()
    with transaction.atomic():
        control.retry(result.id)
        assert on_redis() == (0, 0)
        transaction.set_rollback(True)
    assert (on_redis(), row_of(result).state) == ((0, 0), State.FAILURE)
