"""Groups: calls beside each other, and their results as one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import AsyncResult, GroupResult, Task, broker, chain, chord, group, signature, task
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


def test_a_group_of_one_in_a_chain_is_its_call() -> None:
    one = [echo.s("one")]
    calls = {
        "first": chain(group(one), echo.s()),
        "between": chain(echo.s(0), group(echo.si("one") for _ in range(1)), echo.s()),
        "by pipes": echo.s(0) | group(echo.si("one")) | echo.s() | echo.s(),
        "last": echo.s(0) | group(echo.si("one")),
        "alone": chain(group(one)),
        "in a member": chain(group(group(echo.s(0) | group(echo.si("one")))), echo.s()),
        "behind a chord": chord([echo.s(0)], echo.s()) | group(echo.si("one")) | echo.s(),
        "its JSON form": signature(chain(echo.s(0), group(echo.si("one")), echo.s()).as_dict()),
        "a chain": chain(group(chain(echo.s(0), echo.si("one"))), echo.s()),
    }
    lists = {
        "by itself": group(one),
        "piped": group(one) | echo.s(),
        "a header": chord(one, echo.s()),
        "a body": chord([echo.s(0)], group(echo.si("one"))),
        "a member's end": group(chord([echo.s(0)], group(echo.si("one"))))
        | echo.s()
        | first_of.s(),
        "with an id": echo.s(0) | group(echo.si("one")).set(task_id="mine") | echo.s(),
        "instead of a call": sends_one_instead.s(),
    }
    sent = {name: call.delay() for name, call in (calls | lists).items()}
    work()
    found = {name: result.get(timeout=0) for name, result in sent.items()}
    assert found == dict.fromkeys(calls, "one") | {name: ["one"] for name in lists}


@task
def first_of(values: list[Any]) -> Any:
    return values[0]


@task(bind=True)
def sends_one_instead(self: Task[..., Any]) -> None:
    self.replace(group([echo.s("one")]))


def test_options_of_a_group_of_one() -> None:
    result = chain(echo.s(1), group(echo.s()).set(queue="low", link_error=trace.s())).delay()
    work(["default"])
    assert on_redis("low") == (1, 0)
    work()
    assert result.get(timeout=0) == 1


@task(queue="low", priority=3)
def on_low(value: Any) -> Any:
    return value


@task(name="tests.groups.routed")
def routed(value: Any) -> Any:
    return value


@task(queue="low", ignore_result=True)
def quiet_on_low(value: Any) -> Any:
    return value


@task(sensitive=["card"])
def pays(card: str) -> str:
    return "paid"


MAPS: dict[str, Any] = {
    "map": lambda one: one.map([1, 2]),
    "starmap": lambda one: one.starmap([(1,), (2,)]),
    "chunks": lambda one: one.chunks([(1,), (2,)], 1),
}


@pytest.mark.parametrize("how", MAPS)
def test_many_items_go_to_the_queue_of_their_task(how: str, settings: Settings) -> None:
    def by_function(name: str, *_: Any, **__: Any) -> Any:
        return "high" if name == routed.name else None

    made, messages = MAPS[how], len(MAPS[how](on_low).as_dict()["kwargs"].get("tasks", [1]))
    made(on_low).delay()
    assert (on_redis("low"), on_redis("default")) == ((messages, 0), (0, 0))
    assert {one.priority for one in broker.get().browse("low", due=False)} == {3}
    made(on_low).apply_async(queue="high")
    assert on_redis("high") == (messages, 0)
    for routes in ({routed.name: "high"}, {"tests.groups.*": {"queue": "high"}}, [by_function]):
        before = on_redis("high")[0]
        settings.JOBS = {**settings.JOBS, "TASK_ROUTES": routes}
        made(routed).delay()
        assert on_redis("high") == (before + messages, 0)
    (echo.si(1) | made(on_low)).delay()  # and so does what follows a call
    work(["default"])
    assert on_redis("low") == (2 * messages, 0)
    work()
    assert set(TaskResult.objects.values_list("state", flat=True)) == {State.SUCCESS}


def test_many_items_of_a_task_that_ignores_its_result() -> None:
    quiet_on_low.map([1, 2]).delay()
    work()
    assert not TaskResult.objects.exists()


def test_many_sensitive_items_are_not_shown() -> None:
    with transaction.atomic():
        sent = pays.map(["4111", "4222"]).delay()
    row = TaskResult.objects.get(id=sent.id)
    assert "4111" not in row.kwargs
    assert "4111" not in repr(pays.map(["4111"]))
    work()
    assert sent.get(timeout=0) == ["paid", "paid"]
    assert "4111" not in TaskResult.objects.get(id=sent.id).kwargs


@pytest.mark.parametrize("committed", [True, False])
def test_members_that_keep_no_result_are_not_waited_for(committed: bool) -> None:
    with transaction.atomic() if committed else contextlib.nullcontext():
        result = group(quiet_trace.s("quiet"), echo.s(1), chain(echo.s(2), fail.s())).delay()
    assert (result.ready(), result.successful()) == (False, False)
    work()
    assert (result.ready(), result.successful(), result.failed()) == (True, False, True)
    well = group(quiet_trace.s("quiet"), echo.s(1)).delay()
    assert (well.ready(), well.successful()) == (False, False)
    work()
    assert (well.ready(), well.successful(), well.get(timeout=0)) == (True, True, [None, 1])


@pytest.mark.parametrize("size", [0, -1, 1.5, "2"])
def test_chunks_of_no_size(size: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"size of chunks\(\)"):
        add.chunks([(1, 1), (2, 2)], size)
