"""The options of a task: all known, all checked where the task is declared."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from jobs.api.options import CelerysOptions, Options, TaskOptions
from jobs.api.task import Task
from jobs.exceptions import ConfigurationError


def nothing(a: int = 0, b: int = 0) -> None: ...


async def later() -> None: ...


def test_the_decorator_takes_what_the_options_are() -> None:
    fields = {field.name for field in dataclasses.fields(Options)}
    assert set(get_type_hints(TaskOptions)) - set(get_type_hints(CelerysOptions)) == fields


def test_every_option_has_a_default() -> None:
    assert dataclasses.asdict(Options())["max_retries"] == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"priority": -1}, "priority must be 0 (first) to 9, not -1"),
        ({"priority": True}, "priority must be 0 (first) to 9, not True"),
        ({"acks": "never"}, "acks must be 'late' or 'early', not 'never'"),
        ({"atomic": True, "ignore_result": True}, "an atomic task keeps a result"),
        ({"atomic": True, "acks": "early"}, "acknowledged late"),
        ({"time_limit": 0}, "time_limit must be more than 0 seconds, not 0"),
        ({"soft_time_limit": -1}, "soft_time_limit must be more than 0 seconds, not -1"),
        ({"time_limit": "5"}, "time_limit must be seconds or None, not '5'"),
        ({"max_retrys": 1}, "max_retrys"),
        ({"rate_limit": "100/d"}, "rate_limit must be like '100/s', '100/m', '100/h'"),
        ({"burst": 5}, "burst is for a task with rate_limit="),
        ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
        ({"concurrency": "3"}, "concurrency must be a whole number, not '3'"),
        ({"key": lambda a: a}, "key is for a task with rate_limit= or concurrency="),
        ({"unique": "ever"}, "unique must be 'until_start', 'until_end', seconds"),
        ({"unique_key": lambda a: a}, "unique_key is for a task with unique="),
        ({"sensitive": ["c"]}, "has no parameter 'c', which sensitive= names"),
        ({"fair_by": "c"}, "has no parameter 'c', which fair_by= names"),
        ({"fair_by": lambda tenant: tenant}, "has no parameter 'tenant', which the function of"),
        ({"fair_by": 7}, "fair_by must be the name of a parameter, or a function"),
        ({"fair_by": "a", "sensitive": ["a"]}, "fair_by= names 'a', which is sensitive"),
    ],
)
def test_what_is_wrong_is_told_where_the_task_is_declared(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Task(nothing, name="nothing", **options)
    assert told in str(caught.value)
    assert "nothing" in str(caught.value)


def test_an_atomic_coroutine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="an atomic task is an ordinary function"):
        Task(later, atomic=True)


def test_sensitive_parameters_by_name_and_place() -> None:
    assert Task(nothing, name="n", sensitive=["b"]).sensitive == {"b", "1"}

    def bound(self: Any, a: int, b: int) -> None: ...

    assert Task(bound, name="n", bind=True, sensitive=("b",)).sensitive == {"b", "1"}


def test_parameters_of_any_number_are_refused_as_sensitive() -> None:
    """Nobody could say later which of the values they are."""

    def many(*codes: str, **named: str) -> None: ...

    for name in ("codes", "named"):
        with pytest.raises(ConfigurationError, match=f"{name}.*by itself"):
            Task(many, name="many", sensitive=[name])
