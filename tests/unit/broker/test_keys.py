"""The key of a call, from its arguments."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.api.task import Task
from jobs.exceptions import ConfigurationError


def pay(order_id: int, amount: int = 1, *rest: int, note: str = "", **more: Any) -> None: ...


def key_of(function: Any, *args: Any, **kwargs: Any) -> str:
    key = Task(pay, name="pay", concurrency=1, key=function).key
    assert key is not None
    return key(args, kwargs)


def test_it_gets_the_arguments_that_it_names() -> None:
    assert key_of(lambda order_id: order_id, 7, 5) == "7"
    assert key_of(lambda order_id: order_id, order_id=7) == "7"
    assert key_of(lambda amount, note: (amount, note), 7, note="x") == "(1, 'x')"
    assert key_of(lambda rest, more: (rest, more), 7, 1, 2, x=3) == "((2,), {'x': 3})"
    assert (
        key_of(lambda **given: sorted(given), 7) == "['amount', 'more', 'note', 'order_id', 'rest']"
    )
    assert key_of(lambda order_id, salt="s": f"{order_id}{salt}", 7) == "7s"


def test_a_bound_task_keeps_itself_out_of_it() -> None:
    def bound(self: Any, pk: int) -> None: ...

    key = Task(bound, name="bound", bind=True, concurrency=1, key=lambda pk: pk).key
    assert key is not None
    assert key((7,), {}) == "7"


def test_a_text_that_redis_can_t_take() -> None:
    assert key_of(lambda note: note, 1, note="\ud800é") == "\\ud800é"
    assert len(Task(pay, name="pay", unique=5)._unique_key((1,), {"note": "\ud800"})) == 32  # type: ignore[misc]


def test_long_keys_are_told_apart() -> None:
    first, second = (key_of(lambda note: note, 1, note="x" * 5000 + end) for end in "ab")
    assert len(first) == 32
    assert first != second


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda order: order, "no parameter 'order', which the function of key= takes"),
        (lambda *args: args, "no parameter 'args'"),
        ("order_id", "key must be a function of the task's arguments, not 'order_id'"),
    ],
)
def test_one_that_can_t_be_called_is_refused_at_once(function: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Task(pay, name="pay", concurrency=1, key=function)
    with pytest.raises(ConfigurationError, match=told.replace("key", "unique_key")):
        Task(pay, name="pay", unique=5, unique_key=function)
