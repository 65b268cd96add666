"""Tasks of Django's, as a project has them: on Django 5.2 by the backport."""

from __future__ import annotations

import importlib
from typing import Any

from jobs.contrib import django_tasks as ours

task: Any = importlib.import_module(ours.PACKAGE).task


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(queue_name="low", priority=50)
def urgent() -> str:
    return "done"


@task
async def async_add(a: int, b: int) -> int:
    return a + b


@task(takes_context=True)
def attempt(context: Any, name: str = "") -> list[Any]:
    found = context.task_result
    return [context.attempt, found.status, found.args, len(found.worker_ids[0]) < 64]


@task(takes_context=True)
async def async_attempt(context: Any) -> int:
    return int(context.attempt)


@task
def fail(text: str) -> None:
    raise ValueError(text)


@ours.task(takes_context=True, max_attempts=3, backoff=lambda attempts: attempts * 60.0)
def third_time(context: Any) -> int:
    if context.attempt < 3:
        raise ValueError(f"attempt {context.attempt}")
    return int(context.attempt)


@ours.task(max_attempts=2)
def never() -> None:
    raise KeyError("gone")


@ours.task(timeout=0.2)
def slow() -> None:
    while True:
        pass


@task
def echo(value: Any) -> Any:
    return value
