"""Tasks with ``bind=True`` that are called as functions, as in Celery."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import Any

import pytest

from jobs import (
    Task,
    registry,
    task,
)
from jobs.exceptions import MaxRetriesExceeded, Retry
from jobs.message import Message
from jobs.running.request import (
    current,
    direct_calls,
    said,
)


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "tasks", dict(registry.tasks))


@task(bind=True, name="tests.asks")
def asks(self: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    return self.request


@task(bind=True, name="tests.async_asks")
async def async_asks(self: Task[..., Any], n: int) -> Any:
    await asyncio.sleep(0)
    return self.request


@task(bind=True, name="tests.again", max_retries=2)
def again(self: Task[..., Any], **how: Any) -> None:
    try:
        raise ConnectionError("the real reason")
    except ConnectionError as error:
        self.retry(**(how or {"exc": error}))


def test_the_request_is_celerys() -> None:
    request = asks(1, x=2)
    assert (request.called_directly, request.is_eager, request.retries) == (True, False, 0)
    assert (request.args, request.kwargs) == ((1,), {"x": 2})
    for name in ("id", "queue", "worker", "hostname", "headers", "root_id", "parent_id", "group"):
        assert getattr(request, name) is None, name
    assert (asks.request.called_directly, asks.request.args) == (True, None)
    assert asyncio.run(async_asks(5)).args == (5,)
    assert direct_calls.get() == ()


def test_retry_raises_the_error() -> None:
    with pytest.raises(ConnectionError, match="the real reason"):
        again()
    with pytest.raises(KeyError) as caught:
        again(exc=KeyError("other"))
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(KeyError):
        again(exc=KeyError)
    with pytest.raises(Retry, match="Task can be retried") as told:
        again(countdown=1)
    assert isinstance(told.value.__cause__, ConnectionError)
    assert again.max_retries == 2


def in_a_worker(function: Any, name: str, *args: Any, retries: int = 0) -> Any:
    """Call it as the worker calls the task of this name."""

    def call() -> Any:
        current.set((Message(task=name, id="id-1", queue="q", retries=retries), "w/1"))
        return function(*args)

    return contextvars.copy_context().run(call)


def test_in_a_worker_the_tasks_own_call_is_not_direct() -> None:
    request = in_a_worker(asks, "tests.asks")
    assert (request.called_directly, request.id, request.worker) == (False, "id-1", "w/1")


def test_a_task_that_another_one_calls_is_called_directly() -> None:
    @task(bind=True, name="tests.outer")
    def outer(self: Task[..., Any]) -> Any:
        inner = asks("inner")
        with pytest.raises(ConnectionError):
            again()
        return inner, self.request, asks.request

    inner, own, after = in_a_worker(outer, "tests.outer")
    assert (inner.called_directly, inner.id, inner.args) == (True, None, ("inner",))
    assert (own.called_directly, own.id) == (False, "id-1")
    assert after.called_directly


def test_a_task_that_calls_itself_is_called_directly() -> None:
    @task(bind=True, name="tests.deep")
    def deep(self: Task[..., Any], n: int) -> list[Any]:
        seen = [(self.request.called_directly, self.request.id)]
        return seen + (deep(n - 1) if n else []) + [(self.request.called_directly, n)]

    assert in_a_worker(deep, "tests.deep", 1) == [
        (False, "id-1"),
        (True, None),
        (True, 0),
        (False, 1),
    ]


def test_no_attempt_left_is_seen_by_the_task() -> None:
    @task(bind=True, name="tests.gives_up", max_retries=2)
    def gives_up(self: Task[..., Any]) -> str:
        try:
            self.retry()
        except self.MaxRetriesExceededError as error:
            return str(error)
        return "no"

    told = in_a_worker(gives_up, "tests.gives_up", retries=2)
    assert told == "Task 'tests.gives_up'[id-1] has had 3 attempts."
    assert gives_up.MaxRetriesExceededError is MaxRetriesExceeded
    assert isinstance(said.pop("id-1"), MaxRetriesExceeded)
    with pytest.raises(Retry):
        in_a_worker(gives_up, "tests.gives_up", retries=1)


async def add(x: int, y: int) -> int:
    return x + y


class Object:
    __name__ = "an_object"

    def __init__(self) -> None:
        self.__qualname__ = "an_object"

    async def __call__(self, x: int) -> int:
        return x


def test_what_is_to_be_awaited_is_seen() -> None:
    half = functools.update_wrapper(functools.partial(add, 1), add)
    assert Task(half, name="half").is_async
    assert Task(Object(), name="object").is_async
    assert Task(add, name="add").is_async
    assert not Task(lambda: add(1, 2), name="not").is_async
