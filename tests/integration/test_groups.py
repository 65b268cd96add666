"""Groups: calls beside each other, and their results as one."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from jobs import AsyncResult, GroupResult, Task, group, task
from jobs.exceptions import ResultError, ResultTimeout, TaskRevoked
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.tasks import add, echo, fail, quiet_trace, trace
from tests.workers import on_redis, rolled_back, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(bind=True)
def sends_two(self: Task[..., Any]) -> str:
    with transaction.atomic():
        echo.delay(1)
        (echo.s(2) | echo.s()).delay()
    return self.request.id


def test_results_in_the_order_of_the_calls() -> None:
    result = group(add.s(n, n) for n in range(5)).delay()
    assert len(result) == 5
    assert (result.ready(), result.waiting(), result.completed_count()) == (False, True, 0)
    with pytest.raises(ResultTimeout, match="5 of the 5 members"):
        result.get(timeout=0.01)
    work(threads=3)
    assert result.get(timeout=0) == result.join() == [0, 2, 4, 6, 8]
    assert sorted(result.iterate(timeout=0)) == [0, 2, 4, 6, 8]
    assert result.successful()
    assert result.completed_count() == 5
    assert result[1].get(timeout=0) == 2
    assert [one.id for one in result] == [one.id for one in result.children]


def test_an_empty_group() -> None:
    result = group([]).delay()
    assert (result.get(timeout=0), result.ready(), result.successful()) == ([], True, True)


def test_a_handle_by_its_id() -> None:
    sent = group(echo.s(n) for n in range(3)).delay()
    work()
    again = GroupResult(sent.id)
    assert again == sent
    assert again.get(timeout=0) == [0, 1, 2]


def test_a_failure() -> None:
    result = group(echo.s(1), fail.s("boom"), echo.s(3)).delay()
    work()
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=0)
    one, error, three = result.get(timeout=0, propagate=False)
    assert (one, three) == (1, 3)
    assert isinstance(error, ValueError)
    assert (result.ready(), result.failed(), result.successful()) == (True, True, False)


def test_revoked_and_forgotten() -> None:
    result = group(trace.s("never"), trace.s("never")).delay()
    result.revoke()
    work()
    with pytest.raises(TaskRevoked):
        result.get(timeout=0)
    assert Run.objects.count() == 0
    result.forget()
    assert TaskResult.objects.count() == 0


def test_results_that_nobody_keeps_are_not_waited_for() -> None:
    result = group(quiet_trace.s("x"), echo.s(2)).delay()
    work()
    assert result.get(timeout=1) == [None, 2]


def test_a_group_is_part_of_the_transaction() -> None:
    with rolled_back():
        group(trace.s("never")).delay()
    with transaction.atomic():
        result = group(echo.s(1), echo.s(2)).delay()
        assert on_redis() == (0, 0)
        with pytest.raises(ResultError, match="still open"):
            result.get(timeout=1)
    assert len(GroupResult(result.id)) == 2
    work()
    assert result.get(timeout=0) == [1, 2]


def test_options_of_a_group() -> None:
    result = group(add.s(1), add.s(2)).apply_async((10,), queue="low", task_id="the-group")
    assert (result.id, on_redis("low")) == ("the-group", (2, 0))
    work()
    assert result.get(timeout=0) == [11, 12]
    assert set(TaskResult.objects.values_list("group_id", flat=True)) == {"the-group"}


def test_relatives() -> None:
    sent = sends_two.delay()
    work()
    result = AsyncResult[Any](sent.id)
    one, two = result.children
    assert {one.get(timeout=0), two.get(timeout=0)} == {1, 2}
    (after,) = AsyncResult[Any](two.id).children
    assert after.get(timeout=0) == 2
    known = AsyncResult[Any](after.id)
    assert known.root_id == result.id
    assert known.parent == two
    assert known.parent.parent == result
    assert (result.root_id, result.parent) == (result.id, None)
    assert TaskResult.objects.filter(root_id=result.id).count() == 3


def test_many_items() -> None:
    mapped = echo.map([1, 2, 3]).delay()
    chunked = add.chunks([(n, n) for n in range(10)], 4).delay()
    work()
    assert mapped.get(timeout=0) == [1, 2, 3]
    assert chunked.get(timeout=0) == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    assert {row.state for row in TaskResult.objects.all()} == {State.SUCCESS}
