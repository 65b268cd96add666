"""A task doesn't wait for other tasks, unless it is allowed to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from jobs import (
    AsyncResult,
    GroupResult,
    allow_join_result,
    chain,
    group,
    task,
)
from jobs.exceptions import ResultError, WaitInTask
from jobs.models import TaskResult
from jobs.running import request
from tests.tasks import add, echo
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def in_a_thread(result: Any) -> Any:
    found = []
    context = __import__("contextvars").copy_context()
    thread = threading.Thread(target=lambda: found.append(context.run(caught, result.get)))
    thread.start()
    thread.join()
    raise found[0]


def caught(call: Callable[[], Any]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001  handed on
        return error
    raise AssertionError("nothing was raised")


WAYS: dict[str, Callable[[Any], Any]] = {
    "get": lambda result: result.get(timeout=0.1),
    "get without propagate": lambda result: result.get(timeout=0.1, propagate=False),
    "aget": lambda result: async_to_sync(result.aget)(timeout=0.1),
    "group": lambda result: GroupResult("g", [result]).get(timeout=0.1),
    "join": lambda result: GroupResult("g", [result]).join(timeout=0.1),
    "iterate": lambda result: GroupResult("g", [result]).iterate(timeout=0.1),
    "group's aget": lambda result: async_to_sync(GroupResult("g", [result]).aget)(timeout=0.1),
    "in a thread": in_a_thread,
    "collect": lambda result: list(result.collect()),
}


@task
def waits(way: str, ended: str) -> None:
    WAYS[way](AsyncResult[Any](ended))


@task
async def waits_async(ended: str) -> None:
    await AsyncResult[Any](ended).aget(timeout=0.1)


@task
async def waits_in_a_thread(ended: str) -> None:
    await asyncio.to_thread(AsyncResult[Any](ended).get, timeout=0.1)


@task
def may_wait(ended: str, members: list[str]) -> list[Any]:
    one = AsyncResult[Any](ended)
    several = GroupResult(TaskResult.objects.get(id=members[0]).group_id or "")
    found = [one.get(timeout=1, disable_sync_subtasks=False)]
    found.append(several.get(timeout=1, disable_sync_subtasks=False))
    found.append(list(several.iterate(timeout=1, disable_sync_subtasks=False)))
    with allow_join_result():
        found += [one.get(timeout=1), several.join(timeout=1), async_to_sync(one.aget)(timeout=1)]
    with pytest.raises(WaitInTask):
        one.get(timeout=1)
    assert one.ready()
    return found


@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused_also_when_the_other_has_ended(way: str) -> None:
    ended = add.delay(1, 2)
    work()
    sent = waits.delay(way, ended.id)
    work()
    with pytest.raises(WaitInTask, match=r"^Never call result\.get\(\) within a task!") as error:
        sent.get(timeout=0)
    assert isinstance(error.value, RuntimeError)
    assert f"{waits.name!r}[{sent.id}]" in str(error.value)


@pytest.mark.parametrize("waiting", [waits_async, waits_in_a_thread])
def test_in_async_tasks(waiting: Any) -> None:
    ended = add.delay(1, 2)
    work()
    sent = waiting.delay(ended.id)
    work()
    with pytest.raises(WaitInTask):
        sent.get(timeout=0)


def test_it_may_be_allowed() -> None:
    ended = add.delay(1, 2)
    members = group(echo.s(1), echo.s(1)).delay()
    work()
    sent = may_wait.delay(ended.id, [one.id for one in members])
    work()
    assert sent.get(timeout=0) == [3, [1, 1], [1, 1], 3, [1, 1], 3]


@task
def waits_in_threads(ended: str) -> list[Any]:
    """In such as know nothing of the task that has started them."""
    get = AsyncResult[Any](ended).get
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(caught, get).result()
        allowed = pool.submit(get, timeout=1, disable_sync_subtasks=False).result()
        with allow_join_result():
            also = pool.submit(get, timeout=1).result()
    return [type(refused).__name__, str(refused)[:45], allowed, also]


def test_in_threads_that_a_task_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "in_worker", True)
    with allow_join_result():
        ended = add.delay(1, 2)
        work()
    sent = waits_in_threads.delay(ended.id)
    work()
    found = sent.get(timeout=0, disable_sync_subtasks=False)
    assert found == ["WaitInTask", "Never call result.get() within a task! See ht", 3, 3]


def test_outside_of_a_worker_there_is_nothing_to_allow() -> None:
    ended = add.delay(1, 2)
    work()
    assert waits.run("get", ended.id) is None
    with allow_join_result():
        assert ended.get(timeout=1) == 3


def test_collecting_what_followed() -> None:
    last = chain(add.s(1, 2), add.s(3)).delay()
    first = last.parent
    with pytest.raises(ResultError, match="has not ended"):
        list(first.collect())
    assert list(first.collect(intermediate=True)) == []
    work()
    assert [(one.id, value) for one, value in first.collect()] == [(first.id, 3), (last.id, 6)]
    assert list(first.graph) == [first, last]
    assert first.graph.edges() == [first]


def test_a_group_from_async_code() -> None:
    result = group(echo.s(1), echo.s(2)).delay()
    work()
    assert async_to_sync(result.aget)(timeout=1) == [1, 2]
