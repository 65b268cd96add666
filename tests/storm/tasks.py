"""The tasks of a storm. Each leaves one `Effect` when it succeeds, and goes on trying when the
database is away under it, as a task that uses one should."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from django.db import Error as DatabaseError

from jobs import Task, task
from tests.storm import users
from tests.storm.models import Effect

#: Attempts of those that fail at first.
FAILING = 2


class NotYet(Exception):
    """An attempt that is meant to fail."""


_AGAIN: Any = {
    "bind": True,
    "autoretry_for": (DatabaseError, NotYet),
    "max_retries": None,
    "default_retry_delay": 0.3,
    "priority": 3,
}


@task(**_AGAIN)
def plain(self: Task[..., Any]) -> None:
    _leave(self)


@task(**_AGAIN)
def slow(self: Task[..., Any]) -> None:
    time.sleep(0.2)
    _leave(self)


@task(**_AGAIN, ignore_result=True)
def quiet(self: Task[..., Any]) -> None:
    _leave(self)


@task(**_AGAIN)
def flaky(self: Task[..., Any]) -> None:
    _fail_at_first(self)
    _leave(self)


@task(**_AGAIN, queue="high")
async def waiting(self: Task[..., Any]) -> None:
    await asyncio.sleep(0.05)
    await Effect.objects.acreate(task=self.request.id, kind="waiting")


@task(**_AGAIN, atomic=True, queue="high")
def atomic(self: Task[..., Any]) -> str:
    _leave(self)
    time.sleep(0.005)  # to be killed between the effect and the end
    return "done"


@task(**_AGAIN, atomic=True)
def atomic_flaky(self: Task[..., Any]) -> str:
    _leave(self)
    _fail_at_first(self)
    return "done"


@task(bind=True, priority=3)
def broken(self: Task[..., Any]) -> None:
    raise ValueError("as it should")


def _leave(self: Task[..., Any]) -> None:
    Effect.objects.create(task=self.request.id, kind=self.name.rpartition(".")[2])


def _fail_at_first(self: Task[..., Any]) -> None:
    if self.request.retries < FAILING:
        raise NotYet


#: Kind → task, and how often in a hundred it is sent.
KINDS: dict[str, tuple[Task[..., Any], float]] = {
    "plain": (plain, 30),
    "slow": (slow, 6),
    "quiet": (quiet, 12),
    "flaky": (flaky, 10),
    "waiting": (waiting, 12),
    "atomic": (atomic, 18),
    "atomic_flaky": (atomic_flaky, 8),
    "broken": (broken, 4),
}
if os.environ.get("STORM_USERS"):
    KINDS |= users.KINDS
