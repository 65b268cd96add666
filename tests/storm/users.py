"""Tasks of a storm that do what users' tasks do: leave things behind, and end in odd ways.

``python -m tests.storm --users`` sends them among the others. Each may end in any way, but has to
end; and what they leave behind must not touch the others.
"""

from __future__ import annotations

import contextvars
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone, translation

from jobs import Task, task
from tests.storm.models import Effect

_variable: contextvars.ContextVar[str] = contextvars.ContextVar("storm", default="untouched")


class Touched(Exception):
    """What another task has left behind is here."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


#: What they are sent with: after what is promised to run, and once only if they kill.
_USERS: Any = {"bind": True, "priority": 5, "max_crashes": 20}


# ------------------------------------------------------------------------- what they leave behind


@task(**_USERS)
def leaves_autocommit_off(self: Task[..., Any]) -> None:
    transaction.set_autocommit(False)
    Effect.objects.create(task=self.request.id, kind="left open")


@task(**_USERS)
def leaves_a_transaction(self: Task[..., Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    Effect.objects.create(task=self.request.id, kind="left open")


@task(**_USERS)
def leaves_a_block(self: Task[..., Any]) -> None:
    transaction.atomic().__enter__()
    Effect.objects.create(task=self.request.id, kind="left open")
    raise ValueError("in an atomic block that nobody leaves")


@task(**_USERS)
def leaves_a_search_path(self: Task[..., Any]) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET search_path TO nowhere")


@task(**_USERS)
def leaves_a_context(self: Task[..., Any]) -> None:
    found = (_variable.get(), translation.get_language(), timezone.get_current_timezone_name())
    here = Path.cwd()
    _variable.set("touched")
    translation.activate("zh-hans")
    timezone.activate("Pacific/Apia")
    warnings.simplefilter("error")
    os.chdir(tempfile.gettempdir())
    os.umask(0o777)
    sys.setrecursionlimit(400)
    # With --threads the working directory is also that of the tasks which run beside this one.
    alone = threading.current_thread() is threading.main_thread()
    moved = alone and here == Path(tempfile.gettempdir())
    if found[0] == "touched" or found[1] == "zh-hans" or moved:
        raise Touched(f"{found} in {here}")


@task(**_USERS)
def leaves_a_process(self: Task[..., Any]) -> int:
    return subprocess.Popen(["sleep", "20"]).pid


# ------------------------------------------------------------------------- what they start


@task(**_USERS, time_limit=20)
def starts_a_pool(self: Task[..., Any]) -> list[int]:
    with multiprocessing.Pool(2) as pool:
        return pool.map(abs, range(-4, 0))


@task(**_USERS, time_limit=20)
def starts_a_process(self: Task[..., Any]) -> str:
    return subprocess.run(["cat"], check=True, capture_output=True, text=True).stdout


# ------------------------------------------------------------------------- how they end


@task(**_USERS)
def returns_a_lot(self: Task[..., Any]) -> str:
    return "x" * 1_000_000


@task(**_USERS)
def returns_a_coroutine(self: Task[..., Any]) -> Any:
    async def nobody_awaits() -> None: ...

    return nobody_awaits()


@task(**_USERS)
def returns_a_generator(self: Task[..., Any]) -> Iterator[int]:
    return (n for n in range(3))


@task(**_USERS)
def raises_the_unprintable(self: Task[..., Any]) -> None:
    raise Unprintable


@task(**_USERS)
def raises_a_nul(self: Task[..., Any]) -> None:
    raise ValueError("zero: \0, half: \ud800, long: " + "x" * 400_000)


@task(**_USERS)
def raises_an_exit(self: Task[..., Any]) -> None:
    raise SystemExit(3)


@task(**_USERS)
def retries_with_nonsense(self: Task[..., Any]) -> None:
    nonsense: list[Callable[[], Any]] = [
        lambda: self.retry(countdown="soon"),  # type: ignore[arg-type]
        lambda: self.retry(countdown=float("inf")),
        lambda: self.retry(exc=ValueError, countdown=0),
        lambda: self.retry(args=[object()]),
    ]
    nonsense[hash(self.request.id) % len(nonsense)]()


@task(bind=True, priority=5, max_crashes=1)
def exits(self: Task[..., Any]) -> None:
    os._exit(0)


@task(bind=True, priority=5, max_crashes=1)
def kills_itself(self: Task[..., Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


#: Kind → task, and how often it is sent, as in `tests.storm.tasks.KINDS`, but in a thousand.
KINDS: dict[str, tuple[Task[..., Any], float]] = {
    one.name.rpartition(".")[2]: (one, weight / 10)
    for one, weight in (
        (leaves_autocommit_off, 20),
        (leaves_a_transaction, 20),
        (leaves_a_block, 20),
        (leaves_a_search_path, 10),
        (leaves_a_context, 20),
        (leaves_a_process, 5),
        (starts_a_pool, 3),
        (starts_a_process, 5),
        (returns_a_lot, 10),
        (returns_a_coroutine, 10),
        (returns_a_generator, 10),
        (raises_the_unprintable, 10),
        (raises_a_nul, 10),
        (raises_an_exit, 3),
        (retries_with_nonsense, 10),
        (exits, 1),
        (kills_itself, 1),
    )
}
